package pipeline

import (
	"fmt"
	"io"
	"os"

	"quartet/kernels"
	"quartet/kernels/cpu"
	"quartet/kernels/cuda"
)

// OpenBackend makes the backend for a device of the configuration: "auto", "cpu" or "cuda". The note is not empty where
// "auto" had to fall back to the CPU though there may be a GPU, and says why. CloseBackend gives back what it holds.
//
// QUARTET_CPU names the CPU's kernels, QUARTET_CUDA the type of a GPU's activations.
func OpenBackend(device string) (b kernels.Backend, note string, err error) {
	if device == "cpu" {
		return openCPU("")
	}
	act, err := gpuActivations(os.Getenv("QUARTET_CUDA"))
	if err != nil {
		return nil, "", err
	}
	gpu, err := cuda.Open(0, act)
	switch {
	case err == nil:
		return gpu, "", nil
	case device == "cuda":
		return nil, "", fmt.Errorf("open device cuda: %w", err)
	case gpuLikely():
		return openCPU(fmt.Sprintf("there is an NVIDIA GPU here, but the CPU does the work: %v", err))
	}
	return openCPU("")
}

// CloseBackend frees what a backend holds on its device.
func CloseBackend(b kernels.Backend) error {
	if c, ok := b.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func openCPU(note string) (kernels.Backend, string, error) {
	path, err := cpu.ParsePath(os.Getenv("QUARTET_CPU"))
	if err != nil {
		return nil, "", fmt.Errorf("QUARTET_CPU: %w", err)
	}
	return cpu.New(cpu.On(path)), note, nil
}

// gpuLikely reports whether the machine looks like one with an NVIDIA GPU.
func gpuLikely() bool {
	for _, path := range []string{"/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

func gpuActivations(name string) (kernels.DType, error) {
	for _, d := range []kernels.DType{kernels.F16, kernels.BF16, kernels.F32} {
		if name == d.String() {
			return d, nil
		}
	}
	if name == "" {
		return kernels.F16, nil
	}
	return 0, fmt.Errorf("QUARTET_CUDA is %q; the activations of a GPU are float16, bfloat16 or float32", name)
}

// expected is what OpenBackend would open for a device, without opening it.
func expected(device string) (name string, act kernels.DType) {
	if device != "cpu" {
		act, err := gpuActivations(os.Getenv("QUARTET_CUDA"))
		if _, missing := cuda.Devices(); err == nil && missing == nil {
			return "cuda", act
		}
	}
	return "cpu", kernels.F32
}
