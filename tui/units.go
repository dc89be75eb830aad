package tui

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"quartet/console"
)

// size is a number of bytes, "" for none.
func size(n int64) string {
	if n <= 0 {
		return ""
	}
	return console.Bytes(n)
}

// span is a duration as people write it: 0.4 s, 12 s, 2m05s, 1h02m.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", max(d, 0).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func seconds(s float64) string {
	if math.IsNaN(s) || s > 1e9 {
		return "?"
	}
	return span(time.Duration(s * float64(time.Second)))
}

// brief is a short duration with three digits: 3.44 ms, 1.20 s.
func brief(s float64) string {
	switch {
	case s < 1e-3:
		return digits(s*1e6) + " µs"
	case s < 1:
		return digits(s*1e3) + " ms"
	}
	return digits(s) + " s"
}

// digits is a number with three digits, or all those before the point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "?"
	case a < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a < 1e6:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
