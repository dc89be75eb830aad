package eval

import (
	"math"
	"testing"
)

func TestRougeL(t *testing.T) {
	for _, c := range []struct {
		answer, reference string
		want              float64
	}{
		{"the cat sat", "the cat sat", 1},
		{"The CAT, sat!", "the cat sat", 1},
		{"", "the cat", 0},
		{"the cat", "", 0},
		{"?!", "the cat", 0},
		{"dog", "cat", 0},
		// common: "police the gunman" or "police kill gunman": 3 of 4 and 3 of 5 words
		{"police killed the gunman", "police did kill the gunman", 2 * 0.75 * 0.6 / (0.75 + 0.6)},
		// the order counts: "gunman" or "police killed"
		{"the gunman police killed", "police killed the gunman", 0.5},
		// a repeated word is common only as often as in both
		{"a a a a", "a b a", 2 * 0.5 * (2.0 / 3) / (0.5 + 2.0/3)},
		{"x_1 y", "x 1 y", 1},
		{"Müller läuft", "müller läuft", 1},
		{"北京 是 首都", "北京 是 城市", 2.0 / 3},
	} {
		if got := RougeL(c.answer, c.reference); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("RougeL(%q, %q) = %v, not %v", c.answer, c.reference, got, c.want)
		}
	}
}

func TestExactMatchIgnoresSpaceAroundOnly(t *testing.T) {
	if !ExactMatch(" A bear.\n", "A bear.") || ExactMatch("a bear.", "A bear.") || ExactMatch("A  bear.", "A bear.") {
		t.Error("exact match is equality but for white space around the texts")
	}
}
