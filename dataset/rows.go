// Package dataset is what a model is trained on and tested with: rows in Dolly's schema, their seeded split, the prompt
// template, and the token ids and labels that become of them.
package dataset

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"unicode/utf8"
)

// Row is one instruction with its answer, in the schema of databricks-dolly-15k.
type Row struct {
	Instruction string `json:"instruction"`
	Context     string `json:"context"`
	Response    string `json:"response"`
	Category    string `json:"category"`
}

// maxLine bounds a row's line in bytes.
const maxLine = 16 << 20

// Read reads the rows of a .parquet file, or of any other as JSONL.
func Read(path string) ([]Row, error) {
	if IsParquet(path) {
		return readParquet(path)
	}
	return ReadJSONL(path)
}

// ReadJSONL reads rows, one JSON object a line. Blank lines and unknown keys are skipped; errors name file and line.
func ReadJSONL(path string) ([]Row, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the dataset: %w", err)
	}
	defer f.Close()
	return readRows(path, f)
}

// Join writes the rows of files, one after the other, as ReadJSONL reads them, into a new file. The rows of one file at a time are in
// memory.
func Join(path string, files ...string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("write the dataset: %w", err)
	}
	buffer := bufio.NewWriter(f)
	lines := json.NewEncoder(buffer)
	lines.SetEscapeHTML(false)
	for _, name := range files {
		rows, err := Read(name)
		if err != nil {
			f.Close()
			return err
		}
		for _, row := range rows {
			if err = lines.Encode(row); err != nil {
				return errors.Join(fmt.Errorf("write the dataset %s: %w; check the disk", path, err), f.Close())
			}
		}
	}
	if err := errors.Join(buffer.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write the dataset %s: %w; check the disk", path, err)
	}
	return nil
}

func readRows(name string, r io.Reader) ([]Row, error) {
	var rows []Row
	err := Lines(r, func(n int, line []byte, err error) error {
		var row Row
		if err == nil {
			row, err = ParseRow(line)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s holds no rows; it needs one JSON object a line with instruction and response", name)
	}
	return rows, nil
}

// Lines visits each line that is not blank, counted from 1; the line is valid during the visit only. An error of reading is
// the last visit's. Lines ends with visit's own error, which it returns.
func Lines(r io.Reader, visit func(n int, line []byte, err error) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	n := 1
	for ; s.Scan(); n++ {
		line := bytes.TrimSpace(s.Bytes())
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if len(line) == 0 {
			continue
		}
		if err := visit(n, line, nil); err != nil {
			return err
		}
	}
	switch err := s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return visit(n, nil, fmt.Errorf("the line is longer than %d MiB", maxLine>>20))
	case err != nil:
		return visit(n, nil, err)
	}
	return nil
}

// What a row can lack.
var (
	ErrNoInstruction = errors.New("instruction is missing or empty")
	ErrNoResponse    = errors.New("response is missing or empty: there is nothing to learn from the row")
)

// ParseRow reads one line's JSON object. ErrNoInstruction and ErrNoResponse come with the row.
func ParseRow(line []byte) (Row, error) {
	if !utf8.Valid(line) {
		return Row{}, errors.New("the line is not valid UTF-8")
	}
	// A struct would take keys of any case, and so let a "Response" of another meaning stand in for the response.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return Row{}, fmt.Errorf("the line is a JSON %.20s, not an object", wrong.Value)
		}
		return Row{}, fmt.Errorf("the line is not a JSON object: %w", err)
	}
	var row Row
	for _, f := range []struct {
		name string
		text *string
	}{{"instruction", &row.Instruction}, {"context", &row.Context}, {"response", &row.Response}, {"category", &row.Category}} {
		if fields[f.name] == nil {
			continue
		}
		var wrong *json.UnmarshalTypeError
		if err := json.Unmarshal(fields[f.name], f.text); errors.As(err, &wrong) {
			return Row{}, fmt.Errorf("%s is a JSON %.20s, not a string", f.name, wrong.Value)
		}
	}
	return row, row.check()
}

// check is what the row lacks.
func (r Row) check() error {
	switch {
	case strings.TrimSpace(r.Instruction) == "":
		return ErrNoInstruction
	case strings.TrimSpace(r.Response) == "":
		return ErrNoResponse
	}
	return nil
}

// Split draws heldOut rows and then train rows (0: all that are left) with a seed. The two share no row, not even one that
// occurs twice: all copies of a row, whatever their categories, lie on one side. Of those held out one is kept.
func Split(rows []Row, train, heldOut int, seed uint64) (trainRows, heldOutRows []Row, err error) {
	place := map[Row]int{}
	var distinct [][]Row // each with its copies
	for _, r := range rows {
		content := r
		content.Category = ""
		i, known := place[content]
		if !known {
			i = len(distinct)
			place[content], distinct = i, append(distinct, nil)
		}
		distinct[i] = append(distinct[i], r)
	}
	order := rand.New(rand.NewPCG(seed, 0x5711)).Perm(len(distinct))
	for _, i := range order {
		copies := distinct[i]
		switch {
		case len(heldOutRows) < heldOut:
			heldOutRows = append(heldOutRows, copies[0])
		case train == 0:
			trainRows = append(trainRows, copies...)
		default:
			trainRows = append(trainRows, copies[:min(len(copies), train-len(trainRows))]...)
		}
	}
	if len(heldOutRows) < heldOut || len(trainRows) < max(train, 1) {
		return nil, nil, fmt.Errorf("the dataset has %d rows, %d of them distinct: too few for %d to train on and %d held out; lower num_samples or held_out", len(rows), len(distinct), max(train, 1), heldOut)
	}
	return trainRows, heldOutRows, nil
}
