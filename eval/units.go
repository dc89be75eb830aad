package eval

import (
	"fmt"
	"math"
	"strconv"
)

// formatBytes writes a size in decimal units with three digits: 812 B, 5.03 MB, 1.82 GB.
func formatBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, units := float64(n)/1e3, []string{"kB", "MB", "GB", "TB"}
	for len(units) > 1 && value >= 999.5 {
		value, units = value/1e3, units[1:]
	}
	return digits(value) + " " + units[0]
}

// formatSeconds writes a duration with three digits: 310 µs, 4.20 ms, 1.93 s, 312 s.
func formatSeconds(f Figure) string {
	switch s := float64(f); {
	case s < 999.5e-6:
		return digits(s*1e6) + " µs"
	case s < 0.9995:
		return digits(s*1e3) + " ms"
	default:
		return digits(s) + " s"
	}
}

// digits writes a number with three digits, or all those before the point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}
