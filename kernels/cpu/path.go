package cpu

import (
	"fmt"
	"slices"
	"strings"
)

// Path is a version of the kernels: plain Go, or assembly for vectors of some width or tiles.
type Path string

// The paths. AVX2 takes AVX2, FMA and F16C, AVX512 also BMI2 and AVX-512 F, BW, DQ and VL,
// AMX also its tiles of bfloat16 and the system's leave.
const (
	Plain  Path = "plain"
	AVX2   Path = "avx2"
	AVX512 Path = "avx512"
	AMX    Path = "amx"
)

// Paths are those that this processor runs, the fastest last.
func Paths() []Path {
	all := []Path{Plain}
	for _, p := range []Path{AVX2, AVX512, AMX} {
		if loopsOf(p) != nil {
			all = append(all, p)
		}
	}
	return all
}

// ParsePath is the path of a name; "" is the fastest. A path that this processor doesn't run is an error.
func ParsePath(name string) (Path, error) {
	paths := Paths()
	if name == "" {
		return paths[len(paths)-1], nil
	}
	if p := Path(name); slices.Contains(paths, p) {
		return p, nil
	}
	var names []string
	for _, p := range paths {
		names = append(names, string(p))
	}
	return "", fmt.Errorf("the processor has no kernels %q; it runs %s", name, strings.Join(names, ", "))
}

// On has the backend use a path of Paths instead of the fastest.
func On(p Path) Option {
	return func(b *Backend) { b.path, b.loops = p, loopsOf(p) }
}

// Path is which kernels the backend uses.
func (b *Backend) Path() string { return string(b.path) }
