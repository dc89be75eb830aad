package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"quartet/kernels"
	"quartet/safetensors"
)

// nf4Block is how many weights share an absmax in the checkpoints written here, as by default in bitsandbytes.
const nf4Block = 64

// What bitsandbytes puts behind a quantised weight's name for its state; a name like bitsandbytes__nf4 follows.
const (
	quantStatePrefix = ".quant_state."
	quantStateNF4    = quantStatePrefix + "bitsandbytes__nf4"
)

// AllocNF4 reserves an NF4 matrix and its scales: block weights share an absmax, with double quantisation in 8 bits.
func AllocNF4(b kernels.Backend, rows, cols, block int, round kernels.DType, double bool) (kernels.Tensor, error) {
	t, err := b.Alloc(kernels.NF4, rows, cols)
	if err != nil {
		return kernels.Tensor{}, err
	}
	shapes := kernels.NewQuant(rows*cols, block, round, double)
	q := *shapes
	q.Absmax, q.NestedAbsmax = kernels.Tensor{}, kernels.Tensor{}
	t.Quant = &q
	if q.Absmax, err = b.Alloc(shapes.Absmax.DType, 1, shapes.Absmax.Cols); err == nil && double {
		q.NestedAbsmax, err = b.Alloc(kernels.F32, 1, shapes.NestedAbsmax.Cols)
	}
	if err != nil {
		freeNF4(b, t)
		return kernels.Tensor{}, err
	}
	return t, nil
}

// freeNF4 gives back an NF4 matrix and its scales.
func freeNF4(b kernels.Backend, t kernels.Tensor) {
	b.Free(t.Quant.Absmax)
	b.Free(t.Quant.NestedAbsmax)
	t.Quant = nil
	b.Free(t)
}

// readQuantized takes a weight of rows × cols from a bitsandbytes 4-bit checkpoint; one that was left in 16 bits, and so
// has no state beside it, is taken as it is.
func readQuantized(b kernels.Backend, ck *safetensors.Checkpoint, name string, rows, cols int) (kernels.Tensor, error) {
	t, found, err := FindNF4(ck, name, rows, cols)
	if err != nil {
		return kernels.Tensor{}, err
	}
	if !found {
		return importPlain(b, ck, name, rows, cols)
	}
	return b.Import(t)
}

// FindNF4 is a weight of rows × cols of a bitsandbytes 4-bit checkpoint, in the checkpoint's memory. It is not found where
// no quant_state stands beside it. The error names the weight and what of its state is missing or foreign.
func FindNF4(ck *safetensors.Checkpoint, name string, rows, cols int) (t kernels.Tensor, found bool, err error) {
	states := withPrefix(ck.Names(), name+quantStatePrefix)
	if len(states) == 0 {
		return kernels.Tensor{}, false, nil
	}
	if t, err = quantizedTensor(ck, name, states, rows, cols); err != nil {
		return kernels.Tensor{}, true, fmt.Errorf("tensor %s: %w", name, err)
	}
	return t, true, nil
}

// withPrefix is the part of sorted names that begins with a prefix.
func withPrefix(names []string, prefix string) []string {
	from, _ := slices.BinarySearch(names, prefix)
	to := from
	for to < len(names) && strings.HasPrefix(names[to], prefix) {
		to++
	}
	return names[from:to]
}

// quantizedTensor is a weight in the checkpoint's memory. bitsandbytes may keep the codes' bytes under another type than U8
// (bnb_4bit_quant_storage), so that only their number counts.
func quantizedTensor(ck *safetensors.Checkpoint, name string, states []string, rows, cols int) (kernels.Tensor, error) {
	none := kernels.Tensor{}
	if len(states) > 1 {
		return none, fmt.Errorf("it has %d states, %.120q and %.120q; one is allowed", len(states), states[0], states[1])
	}
	if states[0] != name+quantStateNF4 {
		return none, fmt.Errorf("%.60q is not supported, only bitsandbytes__nf4; quantise the base again", strings.TrimPrefix(states[0], name+quantStatePrefix))
	}
	blob, err := ck.Get(states[0])
	if err != nil {
		return none, err
	}
	s, err := parseQuantState(blob.Data, rows, cols)
	if err != nil {
		return none, err
	}
	codes, err := ck.Get(name)
	if err != nil {
		return none, err
	}
	n := rows * cols
	if len(codes.Data) != (n+1)/2 {
		return none, fmt.Errorf("%d bytes of codes for %d weights, not %d", len(codes.Data), n, (n+1)/2)
	}
	if err := sameMap(ck, name, ".quant_map", kernels.NF4Values[:]); err != nil {
		return none, err
	}
	round, _ := dtypeOf(s.DType)
	q := kernels.NewQuant(n, s.BlockSize, round, s.NestedOffset != nil)
	if q.Absmax, err = scales(ck, name, ".absmax", q.Absmax.DType, q.Absmax.Cols); err != nil {
		return none, err
	}
	if s.NestedOffset != nil {
		if err := sameMap(ck, name, ".nested_quant_map", kernels.SignedMap[:]); err != nil {
			return none, err
		}
		q.NestedBlockSize, q.NestedOffset = s.NestedBlockSize, float32(*s.NestedOffset)
		blocks := (q.Absmax.Cols + s.NestedBlockSize - 1) / s.NestedBlockSize
		if q.NestedAbsmax, err = scales(ck, name, ".nested_absmax", kernels.F32, blocks); err != nil {
			return none, err
		}
	}
	t := kernels.HostTensor(kernels.NF4, rows, cols, codes.Data)
	t.Quant = q
	return t, nil
}

// sameMap checks that a checkpoint's table of values is the one computed with here.
func sameMap(ck *safetensors.Checkpoint, name, suffix string, want []float32) error {
	t, err := ck.Get(name + suffix)
	if err != nil {
		return err
	}
	if t.DType != "F32" || len(t.Data) != 4*len(want) {
		return fmt.Errorf("%s is %s%v, not F32[%d]", suffix[1:], t.DType, t.Shape, len(want))
	}
	for i, w := range want {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:])); got != w {
			return fmt.Errorf("%s[%d] is %g, not the standard %g; quantise the base again", suffix[1:], i, got, w)
		}
	}
	return nil
}

// scales is a checkpoint's vector of n scales.
func scales(ck *safetensors.Checkpoint, name, suffix string, d kernels.DType, n int) (kernels.Tensor, error) {
	t, err := ck.Get(name + suffix)
	if err != nil {
		return kernels.Tensor{}, err
	}
	if want := storedAs[d]; t.DType != want || len(t.Data) != d.Bytes(n) {
		return kernels.Tensor{}, fmt.Errorf("%s is %s%v, not %s[%d]", suffix[1:], t.DType, t.Shape, want, n)
	}
	return kernels.HostTensor(d, 1, n, t.Data), nil
}

// storedAs is the type under which a checkpoint keeps a tensor.
var storedAs = map[kernels.DType]safetensors.DType{kernels.F32: "F32", kernels.F16: "F16", kernels.BF16: "BF16", kernels.U8: "U8"}

// quantEntries are the tensors that bitsandbytes keeps for the NF4 weight t: the scales are copied to host memory, the
// codes are asked for when they are written.
func quantEntries(b kernels.Backend, name string, t kernels.Tensor, codes func() ([]byte, error)) []safetensors.Entry {
	q, packed := t.Quant, kernels.NF4.Bytes(t.Len())
	copied := func(suffix string, t kernels.Tensor) safetensors.Entry {
		data := make([]byte, t.Bytes())
		b.Download(data, t)
		return safetensors.Entry{Name: name + suffix, DType: storedAs[t.DType], Shape: []int{t.Cols}, Data: safetensors.Bytes(data)}
	}
	table := func(suffix string, values []float32) safetensors.Entry {
		return safetensors.Entry{Name: name + suffix, DType: "F32", Shape: []int{len(values)}, Data: safetensors.Bytes(kernels.AsBytes(values))}
	}
	entries := []safetensors.Entry{
		{Name: name, DType: "U8", Shape: []int{packed, 1}, Data: codes},
		copied(".absmax", q.Absmax),
		table(".quant_map", kernels.NF4Values[:]),
	}
	state := quantState{QuantType: "nf4", BlockSize: q.BlockSize, DType: q.Round.String(), Shape: []int{t.Rows, t.Cols}}
	if q.NestedBlockSize > 0 {
		offset := float64(q.NestedOffset)
		state.NestedBlockSize, state.NestedDType, state.NestedOffset = q.NestedBlockSize, "float32", &offset
		entries = append(entries, copied(".nested_absmax", q.NestedAbsmax), table(".nested_quant_map", kernels.SignedMap[:]))
	}
	text := []byte(state.text())
	return append(entries, safetensors.Entry{Name: name + quantStateNF4, DType: "U8", Shape: []int{len(text)}, Data: safetensors.Bytes(text)})
}
