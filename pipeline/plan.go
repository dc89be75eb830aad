package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"quartet/event"
)

// State is how a stage stands.
type State string

// The states of a stage.
const (
	Fresh       State = "fresh"       // its artefact is what its inputs and settings give
	Stale       State = "stale"       // an input, a setting or the artefact changed
	Missing     State = "missing"     // there is no artefact
	Running     State = "running"     // a process works on it
	Failed      State = "failed"      // the last run ended with an error
	Interrupted State = "interrupted" // the last run was stopped or killed
)

// Plan is what a run would do, stage by stage, in order.
type Plan []StagePlan

// StagePlan is one stage of a plan.
type StagePlan struct {
	Stage  string
	State  State
	Reason string // in words, "" where there is nothing to say
	Run    bool   // whether the run would do it; a stage after one that runs may turn out fresh after all
	Fetch  string // what of the hub it fetches first, "" for nothing

	Uploads []event.UploadPart // what it takes elsewhere
	Prediction
}

// Prediction is what a stage will need. A zero means that it cannot be known yet.
type Prediction struct {
	Memory    event.Uses // at the peak, besides the program itself
	DiskBytes int64      // of what the stage writes
	Seconds   float64    // how long it takes
}

// facts is all that the plan depends on for one stage. Gathering them is look's work, deciding is decide's.
type facts struct {
	stage    string
	folder   string // as the configuration spells it
	format   int
	config   []byte
	manifest *Manifest
	mark     *mark
	running  bool   // a process holds the lock
	resumeAt int    // the step that an interrupted training goes on from, 0 for none
	found    Tree   // the recorded outputs as they are now; without a manifest, whatever is there
	there    bool   // the folder, or one of the stage's files in it, exists
	adopt    bool   // an artefact without a manifest is taken as it is
	fetch    string // what of the hub a run of the stage needs and has not got, "" for nothing
	needs    []string
	inputs   map[string]input
}

// input is something a stage reads.
type input struct {
	label string // for people: a path
	tree  Tree
	err   error // why it cannot be read
}

// decide is the plan for facts of all stages, in order. Asked are the stages to run, with the stale ones they need; none
// for all. With force the asked ones run though they are fresh.
func decide(all []facts, asked []string, force bool) Plan {
	if len(asked) == 0 {
		for _, f := range all {
			asked = append(asked, f.stage)
		}
	}
	rerun := map[string]bool{} // stages that are not fresh, or are going to be forced
	plan := make(Plan, len(all))
	for i, f := range all {
		state, reason := f.judge(rerun)
		forced := force && slices.Contains(asked, f.stage)
		rerun[f.stage] = state != Fresh || forced
		if forced && state == Fresh {
			reason = "asked for by --force"
		}
		plan[i] = StagePlan{Stage: f.stage, State: state, Reason: reason}
	}
	wanted := map[string]bool{}
	for _, stage := range asked {
		wanted[stage] = true
	}
	for i := len(all) - 1; i >= 0; i-- {
		f := all[i]
		plan[i].Run = wanted[f.stage] && rerun[f.stage] && plan[i].State != Running
		if plan[i].Run {
			for _, need := range f.needs {
				wanted[need] = true
			}
		}
	}
	fetched := map[string]bool{}
	for i, f := range all {
		if plan[i].Run && f.fetch != "" && !fetched[f.fetch] {
			plan[i].Reason = join([]string{plan[i].Reason, unfetched{f.fetch}.Error()})
			plan[i].Fetch, fetched[f.fetch] = f.fetch, true
		}
	}
	return plan
}

// judge is a stage's state and the reason for it, given the stages before it that are going to run again.
func (f facts) judge(rerun map[string]bool) (State, string) {
	state, reason := f.compare(rerun)
	switch {
	case f.mark == nil:
		return state, reason
	case f.running && f.mark.Error == "" && !f.mark.Stopped:
		return Running, "since " + f.mark.Started.Local().Format("15:04:05")
	case state == Fresh && f.resumeAt > 0:
		return state, fmt.Sprintf("its last rerun did not finish; the former artefact is whole, and another rerun goes on from step %d", f.resumeAt)
	case state == Fresh:
		return state, "its last rerun did not finish; the former artefact is whole"
	case f.mark.Error != "" && !f.mark.Stopped:
		return Failed, f.mark.Error
	case f.resumeAt > 0:
		return Interrupted, fmt.Sprintf("goes on from step %d", f.resumeAt)
	case f.stage == Upload:
		return Interrupted, "what has been sent is not sent again"
	case f.stage == Base && f.fetch != "":
		return Interrupted, "what has been fetched is not fetched again"
	}
	return Interrupted, "starts over"
}

func (f facts) compare(rerun map[string]bool) (State, string) {
	if !f.there {
		if f.manifest == nil {
			return Missing, "not made yet"
		}
		return Missing, f.folder + " is gone"
	}
	m := f.manifest
	if m == nil {
		if f.adopt {
			return Stale, f.folder + " was put there by hand; it will be checked and used"
		}
		return Stale, f.folder + " holds something that this workspace did not make; it will be kept aside"
	}
	var reasons []string
	if m.Format != f.format {
		reasons = append(reasons, "another version of the program made it")
	}
	reasons = append(reasons, changedKeys(m.Config, f.config)...)
	reasons = append(reasons, changedFiles(f.folder, m.Outputs, f.found, false)...)
	for _, name := range slices.Sorted(maps.Keys(f.inputs)) {
		in := f.inputs[name]
		was, known := m.Inputs[name]
		switch {
		case rerun[name]:
			reasons = append(reasons, name+" runs again")
		case errors.As(in.err, new(unfetched)): // what was made of it outlives it, as the base does its source
		case in.err != nil:
			reasons = append(reasons, in.err.Error())
		case !known:
			reasons = append(reasons, in.label+" is a new input")
		default:
			reasons = append(reasons, changedFiles(in.label, was, in.tree, true)...)
		}
	}
	if len(reasons) == 0 {
		return Fresh, ""
	}
	return Stale, join(reasons)
}

// join lists reasons in one line, the first few in full.
func join(reasons []string) string {
	const most = 3
	if len(reasons) > most+1 {
		reasons = append(reasons[:most:most], fmt.Sprintf("%d more changes", len(reasons)-most))
	}
	return strings.Join(reasons, ", ")
}

// changedKeys words the differences between two parts of the configuration.
func changedKeys(was, is []byte) (reasons []string) {
	var before, now map[string]json.RawMessage
	if json.Unmarshal(was, &before) != nil || json.Unmarshal(is, &now) != nil {
		return []string{"its record is unreadable"}
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		name := key[strings.LastIndexByte(key, '.')+1:]
		if old, ok := before[key]; !ok {
			reasons = append(reasons, name+" is a new setting")
		} else if !sameJSON(old, now[key]) {
			reasons = append(reasons, fmt.Sprintf("%s changed from %s to %s", name, shown(old), shown(now[key])))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, ok := now[key]; !ok {
			reasons = append(reasons, key[strings.LastIndexByte(key, '.')+1:]+" no longer counts")
		}
	}
	return reasons
}

// sameJSON compares values, whatever whitespace a file has between their parts.
func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// shown is a setting for a message of one line.
func shown(value json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, value) != nil {
		return "?"
	}
	text := []rune(b.String())
	const most = 40
	if len(text) > most {
		text = append(text[:most-1:most-1], '…')
	}
	return string(text)
}

// changedFiles words the differences between two sets of files in a folder. New files count if added says so.
func changedFiles(folder string, was, is Tree, added bool) (reasons []string) {
	for _, f := range was {
		now, ok := is.find(f.Name)
		switch {
		case !ok:
			reasons = append(reasons, within(folder, f.Name)+" is gone")
		case now.Digest != f.Digest:
			reasons = append(reasons, within(folder, f.Name)+" changed")
		}
	}
	for _, f := range is {
		if _, ok := was.find(f.Name); added && !ok {
			reasons = append(reasons, within(folder, f.Name)+" is new")
		}
	}
	return reasons
}

// within is a file's path for people. An input that is a single file is labelled with its path.
func within(folder, name string) string {
	if folder == name || strings.HasSuffix(folder, "/"+name) {
		return folder
	}
	return folder + "/" + name
}
