// The signatures of all operators. Kernels are in cpu/<op>/ and cuda/<op>/. `_<op>_backward` has no derivative. Shapes,
// formulas and errors are documented in cxrfast/ops/<op>.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(cxrfast, m) {
    // blur_pool
    m.def("blur_pool2d(Tensor x, int filter_size, int stride, int padding_mode) -> Tensor");
    m.def(
        "_blur_pool2d_backward(Tensor grad, SymInt height, SymInt width, int filter_size, int stride, "
        "int padding_mode) -> Tensor");

    // max_blur_pool
    m.def(
        "max_blur_pool2d(Tensor x, int kernel_size, int filter_size, int stride, int padding_mode, int padding) -> "
        "Tensor");
    m.def(
        "_max_blur_pool2d_backward(Tensor grad, Tensor x, int kernel_size, int filter_size, int stride, "
        "int padding_mode, int padding) -> Tensor");

    // components
    m.def("connected_components(Tensor mask, int connectivity) -> Tensor");
    m.def(
        "component_boxes(Tensor scores, Tensor threshold, int connectivity, int select, int min_area) -> "
        "(Tensor boxes, Tensor peak, Tensor mean, Tensor area, Tensor image, Tensor channel)");
    m.def(
        "component_boxes_static(Tensor scores, Tensor threshold, int connectivity, int select, int min_area, "
        "SymInt capacity) -> (Tensor boxes, Tensor peak, Tensor mean, Tensor area, Tensor image, Tensor channel, "
        "Tensor total)");

    // hamming
    m.def(
        "hamming_topk(Tensor queries, Tensor hashes, Tensor? query_labels, Tensor? labels, Tensor? query_indices, "
        "SymInt k, int rule, bool farthest) -> (Tensor indices, Tensor distances)");

    // pac_crf
    m.def("pac_conv2d(Tensor x, Tensor guide, Tensor weight, Tensor? bias, int dilation) -> Tensor");
    m.def(
        "_pac_conv2d_backward(Tensor grad, Tensor x, Tensor guide, Tensor weight, int dilation) "
        "-> (Tensor, Tensor, Tensor)");
    m.def(
        "pac_crf(Tensor unary, Tensor guide, Tensor weight, Tensor? compatibility, Tensor unary_weight, int steps, "
        "int dilation, int activation) -> Tensor");
    m.def(
        "_pac_crf_backward(Tensor grad, Tensor unary, Tensor guide, Tensor weight, Tensor? compatibility, "
        "Tensor unary_weight, int steps, int dilation, int activation) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");

    // mil_pool
    m.def("mil_pool(Tensor logits, Tensor? mask, Tensor? sharpness, int mode) -> Tensor");
    m.def(
        "_mil_pool_backward(Tensor grad, Tensor logits, Tensor? mask, Tensor? sharpness, int mode, "
        "bool sharpness_gradient) -> (Tensor, Tensor)");
    m.def("mil_pool_ragged(Tensor logits, Tensor offsets, Tensor? sharpness, int mode) -> Tensor");
    m.def(
        "_mil_pool_ragged_backward(Tensor grad, Tensor logits, Tensor offsets, Tensor? sharpness, int mode, "
        "bool sharpness_gradient) -> (Tensor, Tensor)");

    // region_loss
    m.def("region_sums(Tensor logits, Tensor mask) -> (Tensor, Tensor, Tensor, Tensor)");
    m.def("_region_sums_backward(Tensor grad_inside, Tensor grad_outside, Tensor logits, Tensor mask) -> Tensor");
    m.def("box_log_likelihood(Tensor logits, Tensor mask, float floor) -> Tensor");
    m.def("_box_log_likelihood_backward(Tensor grad, Tensor logits, Tensor mask, float floor) -> Tensor");

    // self_guiding
    m.def(
        "self_guided_sums(Tensor logits, Tensor positive, Tensor? mask, float delta, bool rescale, int median) -> "
        "(Tensor sums, Tensor statistics)");
    m.def(
        "_self_guided_sums_backward(Tensor grad, Tensor logits, Tensor positive, Tensor? mask, Tensor statistics, "
        "float delta, bool rescale) -> Tensor");
    m.def(
        "self_guided_sums_ragged(Tensor logits, Tensor offsets, Tensor positive, float delta, bool rescale, "
        "int median) -> (Tensor sums, Tensor statistics)");
    m.def(
        "_self_guided_sums_ragged_backward(Tensor grad, Tensor logits, Tensor offsets, Tensor positive, "
        "Tensor statistics, float delta, bool rescale) -> Tensor");
    m.def(
        "self_guided_pool(Tensor logits, Tensor positive, Tensor? mask, Tensor? sharpness, int mode, float delta, "
        "bool rescale, int median) -> (Tensor pooled, Tensor sums, Tensor statistics)");
    m.def(
        "_self_guided_pool_backward(Tensor grad_pooled, Tensor grad_sums, Tensor logits, Tensor positive, "
        "Tensor? mask, Tensor? sharpness, Tensor statistics, int mode, float delta, bool rescale) -> Tensor");
}
