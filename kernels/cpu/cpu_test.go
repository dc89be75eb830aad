package cpu

import (
	"math"
	"slices"
	"strings"
	"testing"

	"quartet/kernels"
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

// TestErrorNF4 holds it against the operations that it stands for.
func TestErrorNF4(t *testing.T) {
	for _, p := range Paths() {
		b := New(On(p), Threads(3))
		for _, d := range []kernels.DType{kernels.F16, kernels.F32} {
			w, x := operand(t, b, d, 131, 77), operand(t, b, kernels.NF4, 131, 77)
			b.QuantizeNF4(x, w)
			moved, whole := b.ErrorNF4(x, w)
			own, apart := operand(t, b, kernels.F32, 131, 77), operand(t, b, kernels.F32, 131, 77)
			b.Copy(own, w)
			b.DequantizeNF4(apart, x)
			var want [2]float64
			for i, v := range own.F32s() {
				d := float64(v - apart.F32s()[i])
				want[0], want[1] = want[0]+d*d, want[1]+float64(v)*float64(v)
			}
			if math.Abs(moved-want[0]) > 1e-12*want[0] || math.Abs(whole-want[1]) > 1e-12*want[1] || moved == 0 {
				t.Errorf("%s, %v: %v and %v, want %v", p, d, moved, whole, want)
			}
			if again, _ := New(On(p), Threads(1)).ErrorNF4(x, w); again != moved {
				t.Errorf("%s, %v: %v with one thread, %v with three", p, d, again, moved)
			}
		}
	}
}

func TestApart(t *testing.T) {
	for _, c := range []struct {
		spans []int32
		want  [][2]int
	}{
		{nil, nil},
		{[]int32{0, 1, 0, 2, 2, 1, 2, 2}, [][2]int{{0, 2}, {2, 4}}},
		{[]int32{0, 1, 0, 2, 1, 2}, [][2]int{{0, 3}}},
		{[]int32{4, 2, 0, 2, 2, 1}, [][2]int{{0, 3}}},
		{[]int32{0, 2, 7, 0, 2, 1}, [][2]int{{0, 1}, {1, 3}}},
	} {
		if got := apart(c.spans); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.spans, got, c.want)
		}
	}
}
