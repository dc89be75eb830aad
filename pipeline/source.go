package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"

	"quartet/kernels"
	"quartet/kernels/cpu"
)

// Source brings models that are not on this machine.
type Source interface {
	// Fetch puts a model's files into dir, an empty folder. progress is told bytes; total is 0 while it is not known.
	Fetch(ctx context.Context, name, revision, dir string, progress func(done, total int64)) error
}

// offline is the source of a program that cannot download.
type offline struct{ folder string }

func (o offline) Fetch(_ context.Context, name, _, _ string, _ func(done, total int64)) error {
	return fmt.Errorf("fetch %s: downloading is not built in yet; put the model's files into %s, or set model.name to a local folder", name, o.folder)
}

// OpenBackend makes the backend for a device of the configuration: "auto", "cpu" or "cuda". The note is not empty where
// "auto" had to leave a GPU unused.
func OpenBackend(device string) (b kernels.Backend, note string, err error) {
	switch device {
	case "cuda":
		return nil, "", errors.New(`open device cuda: this build has no CUDA backend; set device = "cpu" or "auto"`)
	case "auto":
		if _, err := os.Stat("/dev/nvidiactl"); err == nil {
			note = "there is an NVIDIA GPU here, but this build has no CUDA backend; the CPU does the work"
		}
	}
	return cpu.New(), note, nil
}
