// Every operator of the package: the table of contents. Kernels stand in cpu/<op>.cpp and cuda/<op>.cu.
// `_<op>_backward` has no derivative of its own. Shapes, formulas and errors are documented in cxrfast/ops/<op>.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(cxrfast, m) {
    // blur_pool
    m.def("blur_pool2d(Tensor x, int filter_size, int stride, int padding_mode) -> Tensor");
    m.def(
        "_blur_pool2d_backward(Tensor grad, SymInt height, SymInt width, int filter_size, int stride, "
        "int padding_mode) -> Tensor");
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
}
