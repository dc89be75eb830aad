package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quartet/demo"
	"quartet/doctor"
)

func TestDoctorTellsByItsExitStatus(t *testing.T) {
	dir := t.TempDir()
	if err := demo.WriteWorkspace(dir); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, "models", "phi-tiny-base")
	if err := os.CopyFS(base, demo.Model()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		out    string // in the output
	}{
		{[]string{base}, 0, "loads in: transformers yes, quartet yes\n0 errors, 0 warnings\n"},
		{[]string{dir}, 0, "models/phi-tiny-base: model, Phi, 6 layers"},
		{[]string{filepath.Join(dir, "data", "train.jsonl")}, 0, "longest row; max_length 128"}, // by the workspace around it
		{[]string{"--deep", filepath.Join(base, "model.safetensors")}, 0, "weights file, 89 tensors, F16"},
		{[]string{t.TempDir()}, 1, "the folder is empty"},
		{[]string{"a", "b"}, 2, ""},
		{[]string{"-C", t.TempDir(), base}, 1, ""},
	} {
		status, out, errs := called(context.Background(), append([]string{"doctor"}, c.args...)...)
		if status != c.status || !strings.Contains(out, c.out) {
			t.Errorf("doctor %q: status %d\n%s%s", c.args, status, out, errs)
		}
	}
	if err := os.Remove(filepath.Join(base, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	status, out, _ := called(context.Background(), "doctor", "--json", base)
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 1 || r.Kind != doctor.Model || len(r.Verdicts) != 2 || r.Verdicts[0].Loads || r.Findings[0].Level != doctor.Error {
		t.Errorf("status %d, %v\n%s", status, err, out)
	}
}
