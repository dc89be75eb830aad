package cpu

import (
	"strings"
	"testing"

	"quartet/kernels/conformance"
)

func TestConformance(t *testing.T) {
	for _, p := range Paths() {
		t.Run(string(p), func(t *testing.T) { conformance.Run(t, New(On(p), Threads(2))) })
	}
}

// TestThreads requires results that don't depend on how many threads share the work.
func TestThreads(t *testing.T) {
	for _, p := range Paths()[1:] {
		t.Run(string(p), func(t *testing.T) { conformance.Same(t, New(On(p), Threads(1)), New(On(p), Threads(5))) })
	}
}

func TestParsePath(t *testing.T) {
	paths := Paths()
	if p, err := ParsePath(""); err != nil || p != paths[len(paths)-1] {
		t.Errorf("the fastest path is %q, %v", p, err)
	}
	for _, p := range paths {
		if got, err := ParsePath(string(p)); err != nil || got != p || New(On(p)).Path() != string(p) {
			t.Errorf("%s: got %q, %v", p, got, err)
		}
	}
	if _, err := ParsePath("avx1024"); err == nil || !strings.HasPrefix(err.Error(), `the processor has no kernels "avx1024"; it runs plain`) {
		t.Errorf("error %v", err)
	}
}
