package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"quartet/dataset"
	"quartet/tokenizer"
)

// Rules are those by which a dataset's rows become tokens; without a tokenizer lengths are not checked.
type Rules struct {
	Tokenizer *tokenizer.Tokenizer
	Template  dataset.Template
	MaxLength int
	Truncate  bool
}

func isRows(name string) bool {
	switch filepath.Ext(name) {
	case ".jsonl", ".ndjson", ".parquet":
		return true
	}
	return false
}

// datasetFolder examines all files of rows in a folder.
func (x *exam) datasetFolder(dir string, names []string) {
	x.r.Kind = Dataset
	x.files(dir, names, []Library{Quartet})
	var files []string
	for _, name := range names {
		if isRows(name) {
			files = append(files, name)
		}
	}
	if missing := missingShards(files); len(missing) > 0 {
		x.fail("", []Library{Quartet}, "shards are missing: %s; download them", some(missing))
	}
	rows := 0
	for _, name := range files {
		if _, pointer := pointerSize(first(filepath.Join(dir, name))); !pointer {
			rows += x.rows(filepath.Join(dir, name), name)
		}
	}
	if len(files) > 1 {
		x.r.About = fmt.Sprintf("%d rows in %d files", rows, len(files))
		x.note("", "a run reads one file of rows; join these into one .jsonl file, or name one of them in dataset.name")
	}
	x.judge(Quartet)
}

// shardName is what datasets' shards are called: a stem, the shard's number from 0, how many there are, and the format.
var shardName = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})(\.[a-z]+)$`)

// missingShards are the shards that a folder's files tell of but that are not among them.
func missingShards(names []string) (missing []string) {
	type set struct{ stem, of, format string }
	seen := map[set]bool{}
	for _, name := range names {
		m := shardName.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		s := set{m[1], m[3], m[4]}
		if seen[s] {
			continue
		}
		seen[s] = true
		count, _ := strconv.Atoi(s.of)
		for i := range count {
			if shard := fmt.Sprintf("%s-%05d-of-%s%s", s.stem, i, s.of, s.format); !slices.Contains(names, shard) {
				missing = append(missing, shard)
			}
		}
	}
	return missing
}

// datasetFile examines a file of rows.
func (x *exam) datasetFile(path string) {
	x.r.Kind = Dataset
	x.rows(path, filepath.Base(path))
	x.judge(Quartet)
}

// tally is what a dataset's rows are like; rows are named by their lines.
type tally struct {
	rows                      int
	broken                    []string // lines that are no rows, with the reason
	noInstruction, noResponse []int
	copies                    []int
	long, noRoom              []int // more tokens than max_length; so long a prompt that nothing of the answer is left
	tokens, longest           int
	seen                      map[[3]string]bool
	fields                    map[string][]int // the lines by the row's fields
}

// rows examines one file of rows and returns how many it has.
func (x *exam) rows(path, name string) int {
	t := tally{seen: map[[3]string]bool{}, fields: map[string][]int{}}
	if dataset.IsParquet(name) {
		err := dataset.ParquetRows(path, func(n int, row dataset.Row, err error) error {
			t.visit(n, "", row, err, x.Rules)
			return x.ctx.Err()
		})
		if err != nil {
			x.fail(name, []Library{Quartet}, "%s", within(err, "read", path))
			return t.rows
		}
		x.tell(name, t)
		return t.rows
	}
	f, err := os.Open(path)
	if err != nil {
		x.fail(name, []Library{Quartet}, "%s; check its permissions", cause(err))
		return 0
	}
	defer f.Close()
	err = dataset.Lines(f, func(n int, line []byte, err error) error {
		if err == nil {
			if n == 1 && line[0] == '[' {
				return errArray
			}
			row, err := dataset.ParseRow(line)
			t.visit(n, fieldsOf(line), row, err, x.Rules)
			return x.ctx.Err()
		}
		t.visit(n, "", dataset.Row{}, err, x.Rules)
		return x.ctx.Err()
	})
	if errors.Is(err, errArray) {
		x.fail(name, []Library{Quartet}, "%s", err)
		return 0
	}
	x.tell(name, t)
	return t.rows
}

var errArray = errors.New("one JSON array; write one object a line: jq -c '.[]' FILE > NEW.jsonl")

// visit counts a row, or a line that is none. Fields are the row's, "" where all rows have the same.
func (t *tally) visit(n int, fields string, row dataset.Row, err error, rules Rules) {
	t.rows++
	if err != nil && !errors.Is(err, dataset.ErrNoInstruction) && !errors.Is(err, dataset.ErrNoResponse) {
		t.broken = append(t.broken, fmt.Sprintf("%d: %.200s", n, err))
		return
	}
	t.fields[fields] = append(t.fields[fields], n)
	switch {
	case errors.Is(err, dataset.ErrNoInstruction):
		t.noInstruction = append(t.noInstruction, n)
		return
	case errors.Is(err, dataset.ErrNoResponse):
		t.noResponse = append(t.noResponse, n)
		return
	}
	content := [3]string{row.Instruction, row.Context, row.Response}
	if t.seen[content] {
		t.copies = append(t.copies, n)
	}
	t.seen[content] = true
	if rules.Tokenizer == nil {
		return
	}
	prompt := rules.Template.Render(row)
	length := len(rules.Tokenizer.Encode(prompt+row.Response)) + 1 // and end-of-text
	t.tokens += length
	t.longest = max(t.longest, length)
	if length > rules.MaxLength {
		t.long = append(t.long, n)
		if len(rules.Tokenizer.Encode(prompt)) >= rules.MaxLength {
			t.noRoom = append(t.noRoom, n)
		}
	}
}

// fieldsOf are the names of a row's fields that have a value.
func fieldsOf(line []byte) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil {
		return ""
	}
	maps.DeleteFunc(fields, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
	return strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}

// tell makes findings of the figures.
func (x *exam) tell(name string, t tally) {
	stops := []Library{Quartet}
	x.r.About = fmt.Sprintf("%d rows", t.rows)
	if x.Rules.Tokenizer != nil && t.rows > 0 {
		x.r.About += fmt.Sprintf(", %d tokens, %d in the longest row; max_length %d", t.tokens, t.longest, x.Rules.MaxLength)
	}
	if t.rows == 0 {
		x.fail(name, stops, "holds no rows; it needs one JSON object a line with instruction and response")
		return
	}
	if len(t.broken) > 0 {
		x.fail(name, stops, "%d lines are no rows, first line %s; correct or remove them", len(t.broken), t.broken[0])
	}
	common := ""
	for _, fields := range slices.Sorted(maps.Keys(t.fields)) {
		if len(t.fields[fields]) > len(t.fields[common]) {
			common = fields
		}
	}
	if n := len(t.noInstruction); n > 0 && n == t.rows-len(t.broken) {
		x.fail(name, stops, "no row has an instruction; the fields are %.200s: rename them to instruction, context and response", orNone(common))
		return
	}
	if len(t.noInstruction) > 0 {
		x.fail(name, stops, "instruction is missing or empty in %s; fill it in or remove the rows", lines(t.noInstruction))
	}
	if len(t.noResponse) > 0 {
		x.fail(name, stops, "response is missing or empty in %s, from which nothing can be learned; fill it in or remove the rows", lines(t.noResponse))
	}
	// Fields that come and go, such as an optional context, are no other names: only those that replace a field of most rows are.
	for _, fields := range slices.Sorted(maps.Keys(t.fields)) {
		if others := beyond(fields, common); others != "" && beyond(common, fields) != "" {
			x.warn(name, "fields differ: most rows have %.200s, but %s have %.200s; use the same names in all rows", common, lines(t.fields[fields]), others)
		}
	}
	if len(t.copies) > 0 {
		x.warn(name, "an earlier row is repeated in %s, which weighs it double in training; remove the copies", lines(t.copies))
	}
	switch {
	case len(t.long) > 0 && !x.Rules.Truncate:
		x.fail(name, stops, "longer than max_length %d: %s, the longest with %d tokens; raise max_length, or set truncation = true", x.Rules.MaxLength, lines(t.long), t.longest)
	case len(t.long) > 0:
		x.warn(name, "cut at max_length %d, so that the model never sees their end: %s, the longest with %d tokens; raise max_length or remove them", x.Rules.MaxLength, lines(t.long), t.longest)
	}
	if len(t.noRoom) > 0 {
		x.warn(name, "the prompt alone reaches max_length %d, so that nothing of the answer is trained: %s; raise max_length or remove them", x.Rules.MaxLength, lines(t.noRoom))
	}
	if x.Rules.Tokenizer == nil {
		x.note(name, "lengths were not counted, for lack of a tokenizer; -C names the workspace whose tokenizer and max_length count")
	}
}

// lines names the first of some lines and counts all.
func lines(all []int) string {
	const most = 3
	text := fmt.Sprintf("line %d", all[0])
	if len(all) > 1 {
		text = fmt.Sprintf("%d rows, lines %s", len(all), strings.ReplaceAll(strings.Trim(fmt.Sprint(all[:min(most, len(all))]), "[]"), " ", ", "))
	}
	if len(all) > most {
		text += "…"
	}
	return text
}

// beyond are the fields of a that b lacks.
func beyond(a, b string) string {
	have := strings.Split(b, ", ")
	return strings.Join(slices.DeleteFunc(strings.Split(a, ", "), func(f string) bool { return f == "" || slices.Contains(have, f) }), ", ")
}

func orNone(fields string) string {
	if fields == "" {
		return "none"
	}
	return fields
}
