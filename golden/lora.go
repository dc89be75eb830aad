package golden

import (
	"fmt"
	"os"
	"path/filepath"

	"quartet/kernels"
	"quartet/model"
)

// adapted is the reference's base with its adapter.
func adapted(b kernels.Backend, dir string) (*model.Model, error) {
	m, err := load(b, dir, "phi", "base")
	if err != nil {
		return nil, err
	}
	if _, err = os.Stat(filepath.Join(dir, "phi", "lora")); err == nil {
		m.Adapter, err = model.LoadAdapter(b, m.Config, filepath.Join(dir, "phi", "lora"))
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func loraLogits(b kernels.Backend, dir string) ([]Check, error) {
	ref, err := openVectors(dir, "phi", "lora_forward.safetensors")
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	batch, err := ref.batch()
	if err != nil {
		return nil, err
	}
	m, err := adapted(b, dir)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	logits, err := allLogits(m, batch)
	if err != nil {
		return nil, err
	}
	var worst float64
	for _, name := range []string{"logits_adapter_fp32", "logits_merged_fp32"} {
		want, err := ref.floats(name)
		if err != nil {
			return nil, err
		}
		d, largest := farthest(logits, want)
		worst = max(worst, d/largest)
	}
	return []Check{Measure("phi/lora/logits", worst, limit32)}, nil
}

// loraMerge merges the reference's adapter and compares the folder with the merged one: the error is the share of
// elements that differ, 1 if any differs by more than one unit in the last place.
func loraMerge(b kernels.Backend, dir string) ([]Check, error) {
	ref, err := openVectors(dir, "phi", "merged", "model.safetensors")
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	got, _, release, err := written(func(out string) error {
		return model.Convert(b, filepath.Join(dir, "phi", "base"), filepath.Join(dir, "phi", "lora"), out, nil)
	})
	if err != nil {
		return nil, err
	}
	defer release()
	var differ, all, far int
	for _, want := range ref.Tensors() {
		t, ok := got.Get(want.Name)
		if !ok || t.DType != want.DType || len(t.Data) != len(want.Data) {
			return nil, fmt.Errorf("merged tensor %s is missing or of another type", want.Name)
		}
		all += len(want.Data) / 2
		for i := 0; i+1 < len(want.Data); i += 2 {
			g, w := int(t.Data[i])|int(t.Data[i+1])<<8, int(want.Data[i])|int(want.Data[i+1])<<8
			if g != w {
				differ++
				if g-w != 1 && w-g != 1 {
					far++
				}
			}
		}
	}
	share := float64(differ) / float64(all)
	if far > 0 {
		share = 1
	}
	return []Check{Measure("phi/lora/merge", share, 1e-3)}, nil
}

// loraGradients compares the adapter's gradients at one batch: the error is ‖Δ‖/‖g‖ of the worst tensor.
func loraGradients(b kernels.Backend, dir string) ([]Check, error) {
	ref, err := openVectors(dir, "phi", "lora_grads.safetensors")
	if err != nil {
		return nil, err
	}
	defer ref.Close()
	batch, err := ref.batch()
	if err != nil {
		return nil, err
	}
	m, err := adapted(b, dir)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := m.Adapter.EnableGrad(); err != nil {
		return nil, err
	}
	var worst float64
	for _, recompute := range []model.Recompute{model.RecomputeNothing, model.RecomputeMLP, model.RecomputeLayer} {
		p, err := m.NewPass(len(batch.IDs), model.PassOptions{Train: true, Recompute: recompute})
		if err != nil {
			return nil, err
		}
		for _, q := range m.Adapter.Parameters() {
			b.Zero(q.Grad)
		}
		_, _, err = p.Step(batch, 1/float32(batch.Targets()), nil)
		p.Close()
		if err != nil {
			return nil, err
		}
		for _, q := range m.Adapter.Parameters() {
			want, err := ref.floats(q.Name)
			if err != nil {
				return nil, err
			}
			got := make([]float32, q.Grad.Len())
			b.Download(kernels.AsBytes(got), q.Grad)
			if err := b.Sync(); err != nil {
				return nil, err
			}
			worst = max(worst, apart(got, want))
		}
	}
	return []Check{Measure("phi/lora/gradients", worst, 2e-5)}, nil
}
