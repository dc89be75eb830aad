package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"quartet/dataset"
	"quartet/demo"
	"quartet/tokenizer"
)

func TestBrokenDatasets(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, demo.Model()); err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	rules := Rules{Tokenizer: tok, Template: dataset.Template{Prompt: "Q: {instruction}\nA: "}, MaxLength: 40, Truncate: true}
	strict := rules
	strict.Truncate = false
	row := func(instruction, response string) string {
		return fmt.Sprintf("{\"instruction\": %q, \"context\": \"\", \"response\": %q, \"category\": \"qa\"}\n", instruction, response)
	}
	long := strings.Repeat("What is the capital of France? ", 10)
	good := row("What is an owl?", "A bird.") + row("What is a bee?", "An insect.")
	for _, c := range []struct {
		name, text string
		rules      Rules
		verdicts   string
		want       []string
	}{
		{"whole", good, rules, "quartet +", nil},
		{"without a tokenizer", good, Rules{}, "quartet +", []string{"note rows.jsonl: lengths were not counted"}},
		{"empty answers", good + row("Why?", " ") + row("Who?", ""), rules, "quartet -",
			[]string{"error rows.jsonl: response is missing or empty in 2 rows, lines 3, 4, from which nothing can be learned"}},
		{"an empty question", good + row("", "Yes."), rules, "quartet -", []string{"error rows.jsonl: instruction is missing or empty in line 3;"}},
		{"broken lines", good + "{\"instruction\": \n\xff\n", rules, "quartet -", []string{"error rows.jsonl: 2 lines are no rows, first line 3: the line is not a JSON object"}},
		{"copies", good + good, rules, "quartet +", []string{"warning rows.jsonl: an earlier row is repeated in 2 rows, lines 3, 4"}},
		{"cut", good + row("Say it.", long), rules, "quartet +", []string{"warning rows.jsonl: cut at max_length 40, so that the model never sees their end: line 3, the longest with"}},
		{"too long", good + row("Say it.", long), strict, "quartet -", []string{"error rows.jsonl: longer than max_length 40: line 3"}},
		{"no room", good + row(long, "Paris."), rules, "quartet +", []string{"warning rows.jsonl: cut at max_length 40", "warning rows.jsonl: the prompt alone reaches max_length 40"}},
		{"mixed names", good + "{\"instruction\": \"Why?\", \"input\": \"Sun.\", \"response\": \"So.\"}\n", rules, "quartet +",
			[]string{"warning rows.jsonl: fields differ: most rows have category, context, instruction, response, but line 3 have input"}},
		{"an optional context", good + "{\"instruction\": \"Why?\", \"response\": \"So.\"}\n", rules, "quartet +", nil},
		{"other names", "{\"prompt\": \"Why?\", \"completion\": \"So.\"}\n", rules, "quartet -",
			[]string{"error rows.jsonl: no row has an instruction; the fields are completion, prompt: rename them"}},
		{"an array", "[{\"instruction\": \"Why?\"}]\n", rules, "quartet -", []string{"error rows.jsonl: one JSON array; write one object a line"}},
		{"nothing", "\n\n", rules, "quartet -", []string{"error rows.jsonl: holds no rows"}},
		{"a pointer", pointer, rules, "", []string{"error : a Git LFS pointer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "rows.jsonl", c.text)
			compare(t, filepath.Join(dir, "rows.jsonl"), Options{Rules: c.rules}, c.verdicts, c.want)
		})
	}
}

func TestAParquetDataset(t *testing.T) {
	type row struct {
		Instruction string `parquet:"instruction"`
		Response    string `parquet:"response"`
	}
	path := filepath.Join(t.TempDir(), "rows.parquet")
	if err := parquet.WriteFile(path, []row{{"Why?", "So."}, {"Who?", " "}, {"Why?", "So."}}); err != nil {
		t.Fatal(err)
	}
	compare(t, path, Options{}, "quartet -", []string{
		"error rows.parquet: response is missing or empty in line 2",
		"warning rows.parquet: an earlier row is repeated in line 3",
		"note rows.parquet: lengths were not counted",
	})
	write(t, filepath.Dir(path), "rows.parquet", "PAR1 and no more")
	compare(t, path, Options{}, "quartet -", []string{"error rows.parquet: it does not end as a Parquet file does"})
}

func TestADatasetInShards(t *testing.T) {
	dir := t.TempDir()
	rows := "{\"instruction\": \"Why?\", \"response\": \"So.\"}\n"
	for _, name := range []string{"train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl"} {
		write(t, dir, name, rows)
	}
	one := "note : a run reads one file of rows"
	uncounted := func(shard int) string {
		return fmt.Sprintf("note train-%05d-of-00003.jsonl: lengths were not counted", shard)
	}
	compare(t, dir, Options{}, "quartet -", []string{"error : shards are missing: train-00001-of-00003.jsonl; download them", uncounted(0), uncounted(2), one})
	write(t, dir, "train-00001-of-00003.jsonl", rows)
	compare(t, dir, Options{}, "quartet +", []string{uncounted(0), uncounted(1), uncounted(2), one})
}

func TestOtherPaths(t *testing.T) {
	dir := t.TempDir()
	at := func(name, text string) string {
		write(t, dir, name, text)
		return filepath.Join(dir, name)
	}
	folder := func(name string, files ...string) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			write(t, path, f, "{}")
		}
		return path
	}
	for _, c := range []struct{ name, path, want string }{
		{"nothing", filepath.Join(dir, "nothing"), "error : there is nothing here; check the path"},
		{"empty", folder("empty"), "error : the folder is empty"},
		{"other files", folder("other", "a.txt", "b.txt"), "error : holds no model, adapter, dataset or workspace (a.txt, b.txt)"},
		{"pickle", at("model.bin", "PK"), "error : a pickle, which can run code"},
		{"gguf", at("phi.gguf", "GGUF\x03"), "error : a GGUF file"},
		{"zip", at("backup.zip", "PK\x03\x04"), "error : a zip archive"},
		{"device", "/dev/null", "error : neither a file nor a folder"},
		{"weights", at("model-00001.safetensors", "short"), "error model-00001.safetensors: file has 5 bytes, too few"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Examine(context.Background(), c.path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if lines := found(r); len(lines) != 1 || !strings.HasPrefix(lines[0], c.want) {
				t.Errorf("found %q, want %q", lines, c.want)
			}
		})
	}
}

func TestTheHubsCacheIsLookedThrough(t *testing.T) {
	m, entry := made(t), filepath.Join(t.TempDir(), "models--org--phi")
	for _, sub := range []string{"blobs", "refs", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(entry, sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	write(t, entry, "refs/main", "c0ffee")
	write(t, entry, "blobs/ff.incomplete", "")
	if err := os.Rename(m.base, filepath.Join(entry, "snapshots", "c0ffee")); err != nil {
		t.Fatal(err)
	}
	compare(t, entry, Options{}, "transformers +, quartet +", []string{"warning blobs/ff.incomplete: an unfinished download"})
	write(t, entry, "refs/main", "../../..")
	r, err := Examine(context.Background(), entry, Options{})
	if err != nil || r.Count(Error) != 1 {
		t.Errorf("a reference that leaves the folder: %q, %v", found(r), err)
	}
}
