package pipeline

import (
	"strings"
	"testing"
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
