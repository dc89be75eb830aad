package golden

import (
	"fmt"

	"quartet/kernels"
)

// adamW8bit replays six steps of bitsandbytes' AdamW8bit on one flat tensor: the errors are the share of 8-bit codes
// that differ, the relative difference of the block maxima, and that of the parameters to the largest update.
func adamW8bit(b kernels.Backend, dir string) ([]Check, error) {
	ref, err := openVectors(dir, "phi", "adamw8bit.safetensors")
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	start, err := ref.floats("p0")
	if err != nil {
		return nil, err
	}
	n := len(start)
	blocks := (n + kernels.AdamBlock - 1) / kernels.AdamBlock
	var failed error
	alloc := func(d kernels.DType, n int) kernels.Tensor {
		t, err := b.Alloc(d, 1, n)
		if err != nil {
			failed = err
		}
		return t
	}
	param, grad := alloc(kernels.F32, n), alloc(kernels.F32, n)
	state := [2]kernels.Tensor{alloc(kernels.U8, n), alloc(kernels.U8, n)}
	absmax := [2]kernels.Tensor{alloc(kernels.F32, blocks), alloc(kernels.F32, blocks)}
	if failed != nil {
		return nil, failed
	}
	defer func() {
		for _, t := range []kernels.Tensor{param, grad, state[0], state[1], absmax[0], absmax[1]} {
			b.Free(t)
		}
	}()
	b.Upload(param, kernels.AsBytes(start))
	var codes, all int
	var scales, parameters float64
	before := start
	for step := 1; ; step++ {
		g, err := ref.floats(fmt.Sprintf("g%d", step-1))
		if err != nil {
			if step == 1 {
				return nil, err
			}
			break
		}
		b.Upload(grad, kernels.AsBytes(g))
		b.AdamW8bit(param, grad, state[0], absmax[0], state[1], absmax[1], kernels.AdamStep{
			LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, GradScale: 1, T: step})
		for i := range state {
			got := make([]byte, n)
			b.Download(got, state[i])
			want, ok := ref.Get(fmt.Sprintf("state%d_%d", i+1, step))
			if !ok || len(want.Data) != n {
				return nil, fmt.Errorf("state%d_%d is missing", i+1, step)
			}
			if err := b.Sync(); err != nil {
				return nil, err
			}
			for j := range got {
				all++
				if got[j] != want.Data[j] {
					codes++
				}
			}
			wantScale, err := ref.floats(fmt.Sprintf("absmax%d_%d", i+1, step))
			if err != nil {
				return nil, err
			}
			gotScale := make([]float32, blocks)
			b.Download(kernels.AsBytes(gotScale), absmax[i])
			d, largest := farthest(gotScale, wantScale)
			scales = max(scales, d/largest)
		}
		after, err := ref.floats(fmt.Sprintf("p%d", step))
		if err != nil {
			return nil, err
		}
		got := make([]float32, n)
		b.Download(kernels.AsBytes(got), param)
		d, _ := farthest(got, after)
		update, _ := farthest(before, after)
		parameters = max(parameters, d/update)
		before = after
	}
	return []Check{
		Measure("phi/adamw8bit", float64(codes)/float64(all), 1e-4),
		Measure("phi/adamw8bit/absmax", scales, 1e-6),
		Measure("phi/adamw8bit/parameters", parameters, 1e-3),
	}, nil
}
