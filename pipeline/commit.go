package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pending is what takes a finished stage from its temporary folder to its place. It is on disk before the first move, so
// that a crash between any two steps is brought to the end by the next run (see recoverStage):
//
//  1. the temporary folder is complete and synced; pending is written
//  2. each item changes places with the former one, in one step where the file system can do that
//  3. the manifest is written, and with that the stage is done
//  4. the former items go to the history, or away; the temporary folder and pending are removed
type pending struct {
	Manifest Manifest `json:"manifest"`
	Former   *former  `json:"former,omitempty"` // what the new artefact replaces
	Temp     string   `json:"temp"`             // folder, complete; afterwards it holds the former items
	Items    []item   `json:"items"`
}

// former is the run that made the artefact that is replaced.
type former struct {
	Manifest Manifest `json:"manifest"`
	Foreign  bool     `json:"foreign"` // it holds something that the program did not make, and is kept beside
}

// item is one file or folder to move.
type item struct {
	New    string `json:"new"`    // in the temporary folder
	Target string `json:"target"` // its place
	Digest string `json:"digest"` // of the new content
}

// crashPoint is called between any two steps that a crash can separate; tests end the run there.
type crashPoint func(step string)

func (w *Workspace) pendingPath(stage string) string { return w.state("pending", stage+".json") }

// oldPath is where an item's former content waits when it cannot change places in one step.
func (i item) oldPath() string { return i.New + ".old" }

// content is the digest of what lies at a path, "" where that cannot be read.
func (d *digester) content(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if !info.IsDir() {
		f, err := d.file(path)
		if err != nil {
			return ""
		}
		return f.Digest
	}
	t, err := d.tree(path, every)
	if err != nil {
		return ""
	}
	return t.digest()
}

// commit brings a pending stage to its end, from whatever point it had reached.
func (w *Workspace) commit(d *digester, p pending, crash crashPoint) error {
	for _, it := range p.Items {
		if err := w.swap(d, it, crash); err != nil {
			return fmt.Errorf("put %s in its place: %w", it.Target, err)
		}
		crash("moved " + filepath.Base(it.Target))
	}
	stage := p.Manifest.Stage
	if err := writeJSON(w.manifestPath(stage), p.Manifest); err != nil {
		return err
	}
	crash("manifest")
	if err := w.clearMark(stage); err != nil {
		return err
	}
	if err := w.keepFormer(d, p, crash); err != nil {
		return err
	}
	crash("history")
	if err := os.RemoveAll(p.Temp); err != nil {
		return fmt.Errorf("remove %s: %w", p.Temp, obstacle(err))
	}
	if err := os.Remove(w.pendingPath(stage)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("finish stage %s: %w", stage, obstacle(err))
	}
	return nil
}

// exchange makes two paths change places in one step. Tests put the refusal of a network file system in its place.
var exchange = func(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// swap puts an item's new content in its place, unless that has been done. Former content ends at it.New or it.oldPath.
func (w *Workspace) swap(d *digester, it item, crash crashPoint) error {
	if exists(it.Target) && d.content(it.Target) == it.Digest {
		return nil
	}
	if d.content(it.New) != it.Digest {
		return fmt.Errorf("%s has changed since it was written; remove it and run again", it.New)
	}
	if err := os.MkdirAll(filepath.Dir(it.Target), 0o777); err != nil {
		return obstacle(err)
	}
	exchanged := exchange(it.New, it.Target)
	switch {
	case exchanged == nil:
	case !exists(it.Target):
		if err := os.Rename(it.New, it.Target); err != nil {
			return obstacle(err)
		}
	case errors.Is(exchanged, syscall.EINVAL), errors.Is(exchanged, syscall.ENOSYS): // as on network file systems
		if err := os.Rename(it.Target, it.oldPath()); err != nil {
			return obstacle(err)
		}
		crash("moved away " + filepath.Base(it.Target))
		if err := os.Rename(it.New, it.Target); err != nil {
			return obstacle(err)
		}
	default:
		return obstacle(exchanged)
	}
	d.carry(it)
	if err := syncFolder(filepath.Dir(it.Target)); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(it.New))
}

// carry keeps the digests of files that have been renamed.
func (d *digester) carry(it item) {
	for path := range d.known {
		if rest, inside := strings.CutPrefix(path, it.New); inside && (rest == "" || rest[0] == '/') {
			d.moved(path, it.Target+rest)
		}
	}
}

// recoverAll ends what a crash left half done: it completes moves that were pending, puts former artefacts back where
// a new one is not whole, and removes temporary folders.
func (w *Workspace) recoverAll(d *digester, crash crashPoint) error {
	for _, stage := range w.Stages() {
		if err := w.recoverStage(d, stage, crash); err != nil {
			return err
		}
	}
	for _, stage := range w.Stages() {
		for _, temp := range w.temporaries(stage) {
			if err := os.RemoveAll(temp); err != nil {
				return fmt.Errorf("remove %s, which a crash left: %w", temp, obstacle(err))
			}
		}
	}
	return nil
}

func (w *Workspace) recoverStage(d *digester, stage string, crash crashPoint) error {
	var p pending
	found, err := readJSON(w.pendingPath(stage), &p)
	if err != nil || !found {
		return err
	}
	whole := func(it item) bool { return d.content(it.Target) == it.Digest || d.content(it.New) == it.Digest }
	if !slices.ContainsFunc(p.Items, func(it item) bool { return !whole(it) }) {
		return w.commit(d, p, crash)
	}
	for _, it := range p.Items {
		if !exists(it.Target) && exists(it.oldPath()) {
			if err := os.Rename(it.oldPath(), it.Target); err != nil {
				return fmt.Errorf("put %s back: %w", it.Target, obstacle(err))
			}
		}
	}
	if err := os.Remove(w.pendingPath(stage)); err != nil {
		return fmt.Errorf("finish stage %s: %w", stage, obstacle(err))
	}
	return nil
}

// tempPath is the folder in which a run of a stage makes its artefact: beside its place, so that renaming suffices.
func (w *Workspace) tempPath(stage, run string) string {
	dir, prefix := w.tempPlace(stage)
	return filepath.Join(dir, prefix+run)
}

// tempPlace is where a stage's temporary folders lie, and how their names begin. Those of the results lie among them,
// because it is files in that folder that are replaced.
func (w *Workspace) tempPlace(stage string) (dir, prefix string) {
	folder := w.Path(w.folder(stage))
	if amongResults(stage) {
		return folder, ".quartet-"
	}
	return filepath.Dir(folder), "." + filepath.Base(folder) + ".quartet-"
}

func (w *Workspace) temporaries(stage string) []string {
	dir, prefix := w.tempPlace(stage)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var all []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all
}
