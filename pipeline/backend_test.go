package pipeline

import (
	"strings"
	"testing"

	"quartet/kernels/cuda"
)

func TestOpenBackendPath(t *testing.T) {
	t.Setenv("QUARTET_CPU", "plain")
	b, _, err := OpenBackend("cpu")
	if err != nil {
		t.Fatal(err)
	}
	if path := b.(interface{ Path() string }).Path(); path != "plain" {
		t.Errorf("QUARTET_CPU=plain opens the %s kernels", path)
	}
	t.Setenv("QUARTET_CPU", "sse9")
	if _, _, err := OpenBackend("cpu"); err == nil || !strings.HasPrefix(err.Error(), `QUARTET_CPU: the processor has no kernels "sse9"; it runs plain`) {
		t.Errorf("error %v", err)
	}
}

func TestOpenBackendCUDA(t *testing.T) {
	t.Setenv("QUARTET_CUDA", "float8")
	if _, _, err := OpenBackend("cuda"); err == nil || !strings.HasPrefix(err.Error(), `QUARTET_CUDA is "float8"; the activations of a GPU are float16`) {
		t.Errorf("error %v", err)
	}
	if _, _, err := OpenBackend("cpu"); err != nil {
		t.Errorf("the CPU minds QUARTET_CUDA: %v", err)
	}
	t.Setenv("QUARTET_CUDA", "")
	if _, err := cuda.Devices(); err == nil {
		return // with a GPU there is nothing to fall back from
	}
	if b, _, err := OpenBackend("auto"); err != nil || b.Name() != "cpu" {
		t.Errorf("auto without a GPU: %v, %v", b, err)
	}
	if _, _, err := OpenBackend("cuda"); err == nil || !strings.HasPrefix(err.Error(), "open device cuda: ") {
		t.Errorf("error %v", err)
	}
}
