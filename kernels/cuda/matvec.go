package cuda

import "quartet/kernels"

// fewTokens is up to how many tokens Linear reads the weights as they are stored, which takes the time that memory takes.
const fewTokens = 8

// matvec does Linear for few tokens and rows that 16-byte accesses divide; otherwise it does nothing and is false.
func (b *Backend) matvec(out, x, weight, bias kernels.Tensor) bool {
	T, N, K := x.Rows, weight.Rows, weight.Cols
	if T > fewTokens || K%8 != 0 || K == 0 || !weight.DType.IsFloat() || out.DType != x.DType || (x.Addr|weight.Addr)%16 != 0 {
		return false
	}
	const block = 256
	b.run("matvec"+suffix(x.DType)+suffix(weight.DType), [3]int{ceil(N, block/32), 1, 1}, block, 0,
		out.Addr, x.Addr, weight.Addr, bias.Addr, number(int(bias.DType)), number(T), number(N), number(K))
	return true
}
