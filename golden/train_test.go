package golden_test

import (
	"cmp"
	"os"
	"testing"

	"quartet/golden"
	"quartet/kernels/cpu"
)

func TestGoldenTrain(t *testing.T) {
	checks, err := golden.Train(cpu.New(), cmp.Or(os.Getenv("QUARTET_GOLDEN"), "../testdata/golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		t.Run(c.Check, func(t *testing.T) {
			switch {
			case c.Missing:
				t.Skip(c.Note)
			case !c.OK:
				t.Errorf("error %g exceeds %g %s", c.Error, c.Limit, c.Note)
			default:
				t.Logf("error %.2g, limit %g", c.Error, c.Limit)
			}
		})
	}
}
