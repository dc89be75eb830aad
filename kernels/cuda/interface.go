package cuda

import "quartet/kernels"

var _ kernels.Backend = (*Backend)(nil)
