package train

import (
	"bytes"

	"quartet/kernels"
	"quartet/model"
)

// smallest is the number of elements from which a tensor's moments are kept in 8 bits, as bitsandbytes has it.
const smallest = 4096

// optimizer is AdamW (Loshchilov and Hutter 2019) over the adapter, its moments in float32 or, block by block, in 8 bits
// (Dettmers et al. 2022).
type optimizer struct {
	b       kernels.Backend
	groups  []group
	moments []moments
	owned   []kernels.Tensor
}

// group is parameters that lie side by side and have moments of one kind, which move at once: the adapter's values and gradients,
// and m and v in F32 or as U8 codes with an absmax for each kernels.AdamBlock of them. All are (1,n).
type group struct {
	value, grad      kernels.Tensor
	m, v             kernels.Tensor
	absmax1, absmax2 kernels.Tensor // zero Tensors for F32 moments
}

// moments are one parameter's part of its group's.
type moments struct {
	parameter        model.Parameter
	m, v             kernels.Tensor
	absmax1, absmax2 kernels.Tensor
}

func newOptimizer(b kernels.Backend, a *model.Adapter, name string) (*optimizer, error) {
	o := &optimizer{b: b}
	small := func(p model.Parameter) bool { return name == "paged_adamw_8bit" && p.Value.Len() < smallest }
	parameters := a.Parameters()
	for from := 0; from < len(parameters); {
		to := from + 1
		for to < len(parameters) && small(parameters[to]) == small(parameters[from]) {
			to++
		}
		end := a.Values.Len()
		if to < len(parameters) {
			end = parameters[to].At
		}
		if err := o.add(a, parameters[from:to], end, name == "paged_adamw_8bit" && !small(parameters[from])); err != nil {
			o.free()
			return nil, err
		}
		from = to
	}
	return o, nil
}

// add reserves the moments of parameters up to an end in the adapter's values.
func (o *optimizer) add(a *model.Adapter, parameters []model.Parameter, end int, eight bool) error {
	start := parameters[0].At
	n := end - start
	var err error
	alloc := func(d kernels.DType, n int) (t kernels.Tensor) {
		if err == nil {
			if t, err = o.b.Alloc(d, 1, n); err == nil {
				o.owned = append(o.owned, t)
			}
		}
		return t
	}
	g := group{value: part(a.Values, start, end), grad: part(a.Grads, start, end)}
	if eight {
		g.m, g.v = alloc(kernels.U8, n), alloc(kernels.U8, n)
		g.absmax1, g.absmax2 = alloc(kernels.F32, n/kernels.AdamBlock), alloc(kernels.F32, n/kernels.AdamBlock)
	} else {
		g.m, g.v = alloc(kernels.F32, n), alloc(kernels.F32, n)
	}
	if err != nil {
		return err
	}
	if eight { // what lies between parameters is to be 0 whatever the absmax beside it
		o.b.Upload(g.m, bytes.Repeat([]byte{kernels.SignedCode(0)}, n))
	}
	o.groups = append(o.groups, g)
	for _, p := range parameters {
		from, to := p.At-start, p.At-start+p.Value.Len()
		s := moments{parameter: p, m: part(g.m, from, to), v: part(g.v, from, to)}
		if eight {
			from, to = from/kernels.AdamBlock, (to+kernels.AdamBlock-1)/kernels.AdamBlock
			s.absmax1, s.absmax2 = part(g.absmax1, from, to), part(g.absmax2, from, to)
		}
		o.moments = append(o.moments, s)
	}
	return nil
}

// part is the elements [from, to) of a vector.
func part(t kernels.Tensor, from, to int) kernels.Tensor {
	return t.Reshape(t.Cols, 1).Slice(from, to).Reshape(1, to-from)
}

// update moves every parameter by its gradient.
func (o *optimizer) update(s kernels.AdamStep) {
	for _, g := range o.groups {
		if g.absmax1.IsZero() {
			o.b.AdamW(g.value, g.grad, g.m, g.v, s)
		} else {
			o.b.AdamW8bit(g.value, g.grad, g.m, g.absmax1, g.v, g.absmax2, s)
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
