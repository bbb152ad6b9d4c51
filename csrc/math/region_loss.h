// What a patch adds to the region losses of Li et al. 2018 and Rozenberg et al. 2019, for all back ends.
#pragma once

#include "math/sigmoid.h"

namespace cxrfast {

// log(floor + (1 − floor)·σ(x)): Li et al. map probabilities from [0, 1] to [floor, 1] before they multiply them.
template <typename T>
CXRFAST_HOST_DEVICE T log_floored_sigmoid(T x, double floor) {
    if (static_cast<T>(floor) == T(0)) return log_sigmoid(x);
    const T span = static_cast<T>(1.0 - floor), value = static_cast<T>(floor) + span * sigmoid(x);
    return value < T(0.5) ? std::log(value) : std::log1p(-span * sigmoid(-x));
}

template <typename T>
CXRFAST_HOST_DEVICE T log_floored_sigmoid_gradient(T x, double floor) {
    if (static_cast<T>(floor) == T(0)) return sigmoid(-x);
    const T span = static_cast<T>(1.0 - floor);
    return span * sigmoid_gradient(x) / (static_cast<T>(floor) + span * sigmoid(x));
}

// A patch of the box speaks for the finding, every other patch against it (Li et al. 2018, Eq. 1).
template <typename T>
CXRFAST_HOST_DEVICE T patch_log_likelihood(T x, bool in_box, double floor) {
    return log_floored_sigmoid(in_box ? x : -x, floor);
}

template <typename T>
CXRFAST_HOST_DEVICE T patch_log_likelihood_gradient(T x, bool in_box, double floor) {
    const T gradient = log_floored_sigmoid_gradient(in_box ? x : -x, floor);
    return in_box ? gradient : -gradient;
}

}  // namespace cxrfast
