package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"quartet/kernels/cpu"
	"quartet/model"
	"quartet/model/modeltest"
)

// called runs a command line in this process.
func called(ctx context.Context, args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = run(ctx, args, streams{strings.NewReader(""), &o, &e})
	return status, o.String(), e.String()
}

// fourBit makes a random model's folder and its 4-bit one.
func fourBit(t *testing.T) (plain, four string) {
	t.Helper()
	plain, four = filepath.Join(t.TempDir(), "plain"), filepath.Join(t.TempDir(), "four")
	if err := modeltest.Write(plain, modeltest.Shape{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(four, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := model.Quantize(cpu.New(), plain, four, model.QuantizeOptions{DoubleQuant: true, ComputeDType: "float16"}, nil); err != nil {
		t.Fatal(err)
	}
	return plain, four
}

func TestConvertMakesAFolderWholeOrNotAtAll(t *testing.T) {
	plain, four := fourBit(t)
	dir := t.TempDir()
	dst := filepath.Join(dir, "out")
	status, out, errs := called(context.Background(), "convert", four, dst+"/")
	if want := regexp.MustCompile(`(?m)^  ` + dst + ` written, 69\.\d kB\n\z`); status != 0 || errs != "" || !want.MatchString(out) {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	if w, err := model.Load(cpu.New(), dst); err != nil || w.Config.Quantized {
		t.Errorf("loaded %v, %v", w, err)
	} else {
		w.Close()
	}
	made, err := os.ReadFile(filepath.Join(dst, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}

	stopped, stop := context.WithCancel(context.Background())
	stop()
	fresh := filepath.Join(dir, "fresh")
	for _, c := range []struct {
		ctx    context.Context
		args   []string
		status int
		errs   string
	}{
		{context.Background(), []string{four, dst}, 1, "quartet convert: write " + dst + ": there is something already, and nothing is overwritten; choose another name or move it away\n"},
		{context.Background(), []string{four, filepath.Join(dir, "no", "out")}, 1, "quartet convert: write " + dir + "/no/out: the folder " + dir + "/no is missing; make it first\n"},
		{context.Background(), []string{plain, fresh}, 1, "quartet convert: convert " + plain + ": it is not quantised, so there is nothing to do; name an adapter to merge\n"},
		{context.Background(), []string{plain, fresh, "--adapter", dir}, 1, "quartet convert: load adapter " + dir + ": adapter_config.json is missing; a PEFT folder holds it and adapter_model.safetensors\n"},
		{context.Background(), []string{four}, 2, "quartet convert: give the folder to convert, and the one to make\n"},
		{stopped, []string{four, fresh}, 130, "quartet convert: interrupted; the same command goes on, or starts over where nothing is kept\n"},
	} {
		if status, out, errs := called(c.ctx, append([]string{"convert"}, c.args...)...); status != c.status || errs != c.errs {
			t.Errorf("%q: status %d\n%s%s", c.args, status, out, errs)
		}
	}
	status, _, errs = called(context.Background(), "convert", four, fresh, "--adapter", "")
	if status != 1 || !strings.HasPrefix(errs, "invalid value \"\" for flag -adapter: name a folder\n") {
		t.Errorf("an empty --adapter: status %d\n%s", status, errs)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if now, err := os.ReadFile(filepath.Join(dst, "model.safetensors")); err != nil || !bytes.Equal(now, made) {
		t.Errorf("the finished folder has changed, %v", err)
	}
}

func TestConvertRemovesWhatKilledConversionsLeft(t *testing.T) {
	_, four := fourBit(t)
	dir := t.TempDir()
	dead, alive, other := filepath.Join(dir, ".o[u]t.converting-00000001"), filepath.Join(dir, ".o[u]t.converting-00000002"), filepath.Join(dir, ".out.converting-1")
	for _, d := range []string{dead, alive, other} {
		if err := os.MkdirAll(filepath.Join(d, "inner"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	held, err := lock(alive)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if status, _, errs := called(context.Background(), "convert", four, filepath.Join(dir, "o[u]t")); status != 0 {
		t.Fatal(errs)
	}
	var left []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{filepath.Base(alive), ".out.converting-1", "o[u]t"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left %q, not %q", left, want)
	}
}
