package eval

import (
	"encoding/json"
	"math"
)

// Figure is a measured number. One that could not be measured is NaN, and null in JSON.
type Figure float64

// Unknown is a figure that was not measured.
var Unknown = Figure(math.NaN())

// Known reports whether the figure is a finite number.
func (f Figure) Known() bool { return !math.IsNaN(float64(f)) && !math.IsInf(float64(f), 0) }

// MarshalJSON writes the number, or null for what JSON has no number for.
func (f Figure) MarshalJSON() ([]byte, error) {
	if !f.Known() {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// UnmarshalJSON reads a number or null.
func (f *Figure) UnmarshalJSON(data []byte) error {
	*f = Unknown
	if string(data) == "null" {
		return nil
	}
	return json.Unmarshal(data, (*float64)(f))
}

// Figures are numbers as figures.
func Figures(values []float64) []Figure {
	out := make([]Figure, len(values))
	for i, v := range values {
		out[i] = Figure(v)
	}
	return out
}
