// Package doctor says what a folder or a file is (a model, an adapter, a dataset, a workspace), which programs will load it,
// and what is wrong with it. It reads headers and settings; values only where it is asked to, and it changes nothing.
package doctor

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Level is how much a finding matters.
type Level string

// The levels of findings.
const (
	Error   Level = "error"   // something does not load, or is surely not what was wanted
	Warning Level = "warning" // it loads, but look at it
	Note    Level = "note"    // good to know
)

// Library is a program that loads folders.
type Library string

// The libraries whose loading is foretold.
const (
	Transformers Library = "transformers"
	PEFT         Library = "PEFT"
	Bitsandbytes Library = "bitsandbytes"
	Quartet      Library = "quartet"
)

// Kind is what a path holds.
type Kind string

// The kinds that are told apart.
const (
	Model     Kind = "model"
	FourBit   Kind = "4-bit model"
	Adapter   Kind = "adapter"
	Dataset   Kind = "dataset"
	Workspace Kind = "workspace"
	Weights   Kind = "weights file"
	Unknown   Kind = "unknown"
)

// Finding is one thing to know, in one line: what it is, and what to do about it.
type Finding struct {
	Level Level     `json:"level"`
	Where string    `json:"where,omitempty"` // a file of the folder, or a line of it
	Text  string    `json:"text"`
	Stops []Library `json:"stops,omitempty"` // what will not load for this reason
}

// Verdict is whether a library will load what was examined.
type Verdict struct {
	Library Library `json:"library"`
	Loads   bool    `json:"loads"`
	Why     string  `json:"why,omitempty"` // why not
}

// Report is what an examination found.
type Report struct {
	Path     string    `json:"path"`
	Kind     Kind      `json:"kind"`
	About    string    `json:"about,omitempty"` // in a line: architecture, size, types, rows
	Verdicts []Verdict `json:"loads,omitempty"`
	Findings []Finding `json:"findings"`
	Parts    []*Report `json:"parts,omitempty"` // what lies in a workspace
}

// Options say how closely to look.
type Options struct {
	Deep  bool   // read all values: NaN, infinities, matrices of zeros
	Base  string // an adapter's base model, a folder; "" for none
	Rules Rules  // by which a dataset's rows are encoded
}

// Count is the number of findings of a level, those of the parts included.
func (r *Report) Count(level Level) int {
	n := 0
	for _, f := range r.Findings {
		if f.Level == level {
			n++
		}
	}
	for _, p := range r.Parts {
		n += p.Count(level)
	}
	return n
}

// Examine looks at a folder or a file. Its error is of the context alone; what cannot be read is a finding.
func Examine(ctx context.Context, path string, o Options) (*Report, error) {
	x := &exam{ctx: ctx, Options: o, r: &Report{Path: path, Kind: Unknown, Findings: []Finding{}}}
	x.look(path)
	return x.r, ctx.Err()
}

// exam is an examination in progress.
type exam struct {
	Options
	ctx context.Context
	r   *Report
}

func (x *exam) look(path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		x.fail("", nil, "%s; check the path", cause(err))
	case info.IsDir():
		x.folder(path)
	case info.Mode().IsRegular():
		x.file(path, info)
	default:
		x.fail("", nil, "neither a file nor a folder; name a model, an adapter, a dataset or a workspace")
	}
}

func (x *exam) add(level Level, where string, stops []Library, format string, args []any) {
	x.r.Findings = append(x.r.Findings, Finding{level, where, fmt.Sprintf(format, args...), stops})
}

// fail adds an error, with the libraries that it stops.
func (x *exam) fail(where string, stops []Library, format string, args ...any) {
	x.add(Error, where, stops, format, args)
}

func (x *exam) warn(where, format string, args ...any) { x.add(Warning, where, nil, format, args) }
func (x *exam) note(where, format string, args ...any) { x.add(Note, where, nil, format, args) }

// judge adds the verdicts on libraries: each loads unless an error stops it.
func (x *exam) judge(libraries ...Library) {
	for _, l := range libraries {
		v := Verdict{Library: l, Loads: true}
		for _, f := range x.r.Findings {
			if slices.Contains(f.Stops, l) {
				v.Loads, v.Why = false, strings.TrimPrefix(f.Where+": "+f.Text, ": ")
				break
			}
		}
		x.r.Verdicts = append(x.r.Verdicts, v)
	}
}

// some lists the first of several names and counts the others.
func some(names []string) string {
	const most = 2
	if len(names) <= most+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
