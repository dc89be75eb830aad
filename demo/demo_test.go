package demo

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"quartet/config"
)

func TestWorkspaceHasTheReferenceSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "quartet-demo")
	if err := WriteWorkspace(dir); err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(filepath.Join(dir, "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Model.Name = "embedded"
	want.Paths = config.Paths{
		Base: "models/phi-tiny-base", Quantized: "models/phi-tiny-quantized", LoRA: "models/phi-tiny-lora",
		LoRAQuantized: "models/phi-tiny-lora-quantized", Results: "results",
	}
	want.Dataset.Name, want.Dataset.NumSamples = "data/train.jsonl", 400
	want.Dataset.HeldOutFile, want.Dataset.HeldOut = "data/test.jsonl", 150
	want.Dataset.MaxLength = 128
	want.Training.NumEpochs, want.Training.LearningRate = 2, 5e-3
	want.Evaluation.MaxNewTokens, want.Evaluation.Batch = 48, 16
	want.Evaluation.TestPrompts = got.Evaluation.TestPrompts
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the demo's config is\n%+v\nwant\n%+v", got, want)
	}
	if got.Model.Source() != config.Embedded {
		t.Error("the demo's model is not the embedded one")
	}

	train := rows(t, filepath.Join(dir, got.Dataset.Name))
	test := rows(t, filepath.Join(dir, got.Dataset.HeldOutFile))
	if len(train) != got.Dataset.NumSamples || len(test) != got.Dataset.HeldOut {
		t.Errorf("%d rows to train on and %d to test with, want %d and %d", len(train), len(test), got.Dataset.NumSamples, got.Dataset.HeldOut)
	}
	trained := map[[2]string]bool{}
	for _, r := range train {
		trained[[2]string{r["instruction"], r["context"]}] = true
	}
	asked := map[string]bool{}
	for _, r := range test {
		if trained[[2]string{r["instruction"], r["context"]}] {
			t.Errorf("the test question %q is also trained on", r["instruction"])
		}
		asked[r["instruction"]] = true
	}
	for _, p := range got.Evaluation.TestPrompts {
		if !asked[p] {
			t.Errorf("the test prompt %q is not one of the held-out questions", p)
		}
	}
}

func rows(t *testing.T, path string) (all []map[string]string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		var row map[string]string
		if err := json.Unmarshal(s.Bytes(), &row); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, row)
	}
	return all
}

func TestWorkspaceKeepsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(mine, []byte("seed = 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteWorkspace(dir); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(mine); string(got) != "seed = 7\n" {
		t.Errorf("config.toml was overwritten with %q", got)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "data/train.jsonl")); len(got) == 0 {
		t.Error("data/train.jsonl was not written")
	}
	if err := os.Remove(filepath.Join(dir, "data/test.jsonl")); err != nil {
		t.Fatal(err)
	}
	if err := WriteWorkspace(dir); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "data/test.jsonl")); len(got) == 0 {
		t.Error("data/test.jsonl was not written again")
	}
}

func TestWriteModel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	for range 2 { // the second time over the first
		if err := WriteModel(dir); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range written {
		names = append(names, e.Name())
		got, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		want, err := fs.ReadFile(Model(), e.Name())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from the embedded file (%v)", e.Name(), err)
		}
	}
	want := "config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the folder holds %s, want %s", got, want)
	}
}

func TestWriteNamesWhatFailed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := "write config.json of the demo: mkdir " + file + ": not a directory"
	if err := WriteModel(file); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	want = "make the demo's workspace: lstat " + file + "/data/train.jsonl: not a directory"
	if err := WriteWorkspace(file); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
