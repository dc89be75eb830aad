package golden

import (
	"os"
	"strings"
	"testing"

	"quartet/kernels/cpu"
)

// folder is the reference data: $QUARTET_GOLDEN or the project's own copy.
func folder() string {
	if dir := os.Getenv("QUARTET_GOLDEN"); dir != "" {
		return dir
	}
	return "../testdata/golden"
}

// TestGolden runs every check but those that have a test of their own.
func TestGolden(t *testing.T) {
	b := cpu.New()
	err := Run(b, folder(), func(c Check) {
		t.Run(strings.ReplaceAll(c.Check, "/", "."), func(t *testing.T) {
			switch {
			case c.Missing:
				t.Skipf("MISSING: %s", c.Note)
			case !c.OK:
				t.Errorf("error %g, limit %g %s", c.Error, c.Limit, c.Note)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}
