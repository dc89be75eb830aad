package golden

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quartet/kernels/cpu"
)

const own = "../testdata/golden"

// TestGolden makes every check on $QUARTET_GOLDEN, where data may be missing, or on the project's own copy, where none is.
func TestGolden(t *testing.T) {
	dir, foreign := os.LookupEnv("QUARTET_GOLDEN")
	if !foreign {
		dir = own
	}
	err := Run(cpu.New(), dir, func(c Check) {
		t.Run(strings.ReplaceAll(c.Check, "/", "."), func(t *testing.T) {
			switch {
			case c.Missing && foreign:
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

// TestWrongReferenceFails changes single values of the reference and expects the checks to see it.
func TestWrongReferenceFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "phi"), 0o777); err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Abs(own + "/phi/base")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(base, filepath.Join(dir, "phi", "base")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(own + "/phi/forward.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := openVectors(own, "phi", "forward.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	for name, check := range map[string]string{"hidden_2": "phi/forward/hidden", "logits_fp32": "phi/forward/logits", "loss_fp32": "phi/forward/loss"} {
		tensor, ok := ref.Get(name)
		if !ok {
			t.Fatalf("the reference has no %s", name)
		}
		at := strings.Index(string(data), string(tensor.Data))
		wrong := append([]byte{}, data...)
		value := math.Float32frombits(binary.LittleEndian.Uint32(wrong[at:]))
		binary.LittleEndian.PutUint32(wrong[at:], math.Float32bits(value+1e-3))
		if err := os.WriteFile(filepath.Join(dir, "phi", "forward.safetensors"), wrong, 0o666); err != nil {
			t.Fatal(err)
		}
		checks, err := forward(cpu.New(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			if c.OK == (c.Check == check) {
				t.Errorf("with %s changed by 1e-3, %s has error %g, limit %g", name, c.Check, c.Error, c.Limit)
			}
		}
	}
}

// TestMissingPartsAreReported runs on an empty folder.
func TestMissingPartsAreReported(t *testing.T) {
	n := 0
	if err := Run(cpu.New(), t.TempDir(), func(c Check) {
		n++
		if !c.Missing || c.OK {
			t.Errorf("%s is %+v", c.Check, c)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if n < 40 {
		t.Errorf("only %d checks were reported", n)
	}
	if Run(cpu.New(), "no such folder", func(Check) {}) == nil {
		t.Error("a folder that does not exist is no error")
	}
}
