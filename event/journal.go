package event

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// The journal's size: a segment is closed once it holds segmentBytes, and the oldest beyond keepSegments are removed.
const (
	segmentBytes = 4 << 20
	keepSegments = 16
)

var segmentName = regexp.MustCompile(`^[0-9]{8}\.ndjson$`)

// Journal appends events to numbered files of one line of JSON each. It belongs to one goroutine.
type Journal struct {
	dir     string
	file    *os.File
	number  int
	size    int64
	segment int64 // bytes after which a segment is closed
	keep    int
	err     error
}

// OpenJournal goes on with the journal in dir, which it makes if need be. A last line that a crash cut off is ended, so
// that the next event begins a line of its own.
func OpenJournal(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, reason(err))
	}
	names, err := segments(dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{dir: dir, number: 1, segment: segmentBytes, keep: keepSegments}
	if len(names) > 0 {
		fmt.Sscanf(names[len(names)-1], "%d", &j.number)
	}
	return j, j.open()
}

func (j *Journal) open() error {
	path := filepath.Join(j.dir, fmt.Sprintf("%08d.ndjson", j.number))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return fmt.Errorf("open journal %s: %w", path, reason(err))
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open journal %s: %w", path, reason(err))
	}
	j.file, j.size = f, info.Size()
	last := []byte{'\n'}
	if j.size > 0 {
		if _, err := f.ReadAt(last, j.size-1); err != nil {
			f.Close()
			return fmt.Errorf("read journal %s: %w", path, reason(err))
		}
	}
	if last[0] != '\n' {
		return j.write([]byte{'\n'})
	}
	return nil
}

func (j *Journal) write(line []byte) error {
	n, err := j.file.Write(line)
	j.size += int64(n)
	if err != nil {
		return fmt.Errorf("write journal %s: %w", j.file.Name(), reason(err))
	}
	return nil
}

// Append writes an event, and waits until it is on disk where its kind must be delivered.
func (j *Journal) Append(e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if j.size >= j.segment {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	if err := j.write(append(line, '\n')); err != nil {
		return err
	}
	if e.Kind.Lossy() {
		return nil
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("write journal %s: %w", j.file.Name(), reason(err))
	}
	return nil
}

func (j *Journal) rotate() error {
	if err := j.Close(); err != nil {
		return err
	}
	j.number++
	if err := j.open(); err != nil {
		return err
	}
	names, err := segments(j.dir)
	if err != nil {
		return err
	}
	for _, name := range names[:max(0, len(names)-j.keep)] {
		if err := os.Remove(filepath.Join(j.dir, name)); err != nil {
			return fmt.Errorf("shorten journal: %w", err)
		}
	}
	return nil
}

// Sink appends each event. The first error ends the journal, not the run; Err tells it.
func (j *Journal) Sink() Sink {
	return func(e Event) {
		if j.err == nil {
			j.err = j.Append(e)
		}
	}
}

// Err is the first error of the journal's sink.
func (j *Journal) Err() error { return j.err }

// Close ends the journal; what was appended stays.
func (j *Journal) Close() error {
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("close journal %s: %w", j.file.Name(), reason(err))
	}
	return nil
}

// ReadJournal gives every event of the journal in dir, oldest first, to visit, until that returns false. Lines that a
// crash cut off are left out. A folder without a journal has no events.
func ReadJournal(dir string, visit func(Event) bool) error {
	names, err := segments(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		more, err := readSegment(filepath.Join(dir, name), visit)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func readSegment(path string, visit func(Event) bool) (more bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // shortened meanwhile
	}
	if err != nil {
		return false, fmt.Errorf("read journal %s: %w", path, reason(err))
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read journal %s: %w", path, reason(err))
		}
		var e Event
		if json.Unmarshal(bytes.TrimSpace(line), &e) == nil && e.Kind != "" && !visit(e) {
			return false, nil
		}
	}
}

func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", dir, reason(err))
	}
	var names []string
	for _, e := range entries {
		if segmentName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// reason is an error of the file system without the path, which the message names already.
func reason(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}
