package golden

import (
	"os"
	"testing"

	"quartet/kernels/cpu"
)

func TestGoldenDemo(t *testing.T) {
	dir := os.Getenv("QUARTET_GOLDEN")
	if dir == "" {
		dir = "../testdata/golden"
	}
	checks, err := Demo(cpu.New(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		switch {
		case c.Missing:
			t.Skipf("%s: %s", c.Check, c.Note)
		case !c.OK:
			t.Errorf("%s: error %g, limit %g %s", c.Check, c.Error, c.Limit, c.Note)
		}
	}
}
