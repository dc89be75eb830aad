package conformance

import (
	"fmt"

	"quartet/kernels"
)

func dropouts() (checks []check) {
	for _, s := range [][2]int{{0, 5}, {1, 1}, {2, 3}, {3, 4}, {2, 18}, {5, 33}, {70, 161}, {3, 2561}} {
		for _, p := range []float32{0, 0.1, 0.5, 0.99} {
			T, D := s[0], s[1]
			checks = append(checks, check{"Dropout", fmt.Sprintf("%dx%d/%v", T, D, p), func(r *rig) {
				key := kernels.DropoutKey{Seed: r.rand.Uint64(), Step: r.rand.Uint32(), Layer: uint16(r.rand.Uint32()), Site: uint16(r.rand.Uint32())}
				values := make([]float64, T*D)
				for i := range values {
					values[i] = 1 + r.rand.Float64() // never 0, so that what is dropped shows
				}
				x, xs := r.put(r.b.Activations(), T, D, values)
				at := make([]int32, 2*T)
				for i := range at {
					at[i] = int32(r.rand.Uint32())
				}
				keep, want := make([]bool, D), make([]float64, T*D)
				for t := range T {
					kernels.DropoutKeep(keep, p, key, at[2*t], at[2*t+1])
					for i, k := range keep {
						if k {
							want[t*D+i] = xs[t*D+i] / (1 - float64(p))
						}
					}
				}
				tokens, out := r.ints(T, 2, at), r.junk(T, D)
				r.b.Dropout(out, x, tokens, p, key)
				r.b.Dropout(x, x, tokens, p, key)
				for name, t := range map[string]kernels.Tensor{"out": out, "out that is x": x} {
					r.near(name, t, want, tolerance{3e-7, 1e-3})
					for i, v := range r.values(t) {
						if (v == 0) != (want[i] == 0) {
							r.Fatalf("%s: the mask differs at token %d, column %d", name, i/D, i%D)
						}
					}
				}
			}})
		}
	}
	return checks
}
