package train

import (
	"quartet/kernels"
	"quartet/model"
)

// smallest is the number of elements from which a tensor's moments are kept in 8 bits, as bitsandbytes has it.
const smallest = 4096

// optimizer is AdamW (Loshchilov and Hutter 2019) over the adapter, its moments in float32 or, block by block, in 8 bits
// (Dettmers et al. 2022).
type optimizer struct {
	b       kernels.Backend
	moments []moments
	owned   []kernels.Tensor
}

// moments are one parameter's state: m and v in F32, or as U8 codes with an absmax for each kernels.AdamBlock of them.
type moments struct {
	parameter        model.Parameter
	m, v             kernels.Tensor
	absmax1, absmax2 kernels.Tensor // zero Tensors for F32 moments
}

func newOptimizer(b kernels.Backend, parameters []model.Parameter, name string) (*optimizer, error) {
	o := &optimizer{b: b}
	var err error
	alloc := func(d kernels.DType, n int) (t kernels.Tensor) {
		if err == nil {
			if t, err = b.Alloc(d, 1, n); err == nil {
				o.owned = append(o.owned, t)
			}
		}
		return t
	}
	for _, p := range parameters {
		n := p.Value.Len()
		s := moments{parameter: p}
		if name == "paged_adamw_8bit" && n >= smallest {
			blocks := (n + kernels.AdamBlock - 1) / kernels.AdamBlock
			s.m, s.v = alloc(kernels.U8, n), alloc(kernels.U8, n)
			s.absmax1, s.absmax2 = alloc(kernels.F32, blocks), alloc(kernels.F32, blocks)
		} else {
			s.m, s.v = alloc(kernels.F32, n), alloc(kernels.F32, n)
		}
		o.moments = append(o.moments, s)
	}
	if err != nil {
		o.free()
		return nil, err
	}
	return o, nil
}

// update moves every parameter by its gradient.
func (o *optimizer) update(s kernels.AdamStep) {
	for _, p := range o.moments {
		n := p.parameter.Value.Len()
		value, grad := p.parameter.Value.Reshape(1, n), p.parameter.Grad.Reshape(1, n)
		if p.absmax1.IsZero() {
			o.b.AdamW(value, grad, p.m, p.v, s)
		} else {
			o.b.AdamW8bit(value, grad, p.m, p.absmax1, p.v, p.absmax2, s)
		}
	}
}

func (o *optimizer) bytes() int64 {
	var n int64
	for _, t := range o.owned {
		n += int64(t.Bytes())
	}
	return n
}

func (o *optimizer) free() {
	for _, t := range o.owned {
		o.b.Free(t)
	}
	o.owned = nil
}
