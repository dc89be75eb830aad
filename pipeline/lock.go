package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// Holder is the process that holds a workspace's lock: a worker, or a run in the foreground.
type Holder struct {
	Host    string    `json:"host"`
	Boot    string    `json:"boot"` // the kernel's boot id: the process id means something within one boot only
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Run     string    `json:"run,omitempty"` // the run at work, "" for a worker that waits
}

// String says who holds the lock, for messages.
func (h Holder) String() string {
	return fmt.Sprintf("process %d on %s, since %s", h.PID, h.Host, h.Started.Local().Format("2006-01-02 15:04:05"))
}

// Locked is the error of a run in a workspace that another process works in.
type Locked struct{ Holder Holder }

// Error names the holder and says what to do.
func (l Locked) Error() string {
	if l.Holder.PID == 0 {
		return "lock workspace: another process works here; wait for it"
	}
	if l.Holder.Run == "" {
		return fmt.Sprintf("lock workspace: a worker holds it, %s; `quartet stop` ends it", l.Holder)
	}
	return fmt.Sprintf("lock workspace: %s works here; wait for it or stop it", l.Holder)
}

// Lock is a workspace's lock, held by this process. The system lets it go when the process ends, however it ends.
type Lock struct {
	file   *os.File
	holder Holder
}

// Lock takes the workspace's lock. It is a Locked error where another process has it.
func (w *Workspace) Lock() (*Lock, error) {
	path := w.state("lock")
	if err := os.MkdirAll(w.state(), 0o777); err != nil {
		return nil, fmt.Errorf("open workspace %s: %w", w.Dir, obstacle(err))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, obstacle(err))
	}
	take := func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	err = take()
	for range 5 { // holder's look takes the lock for a moment
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		err = take()
	}
	if err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, Locked{readHolder(f)}
		}
		return nil, fmt.Errorf("lock %s: %w; put the workspace on a file system that has locks", path, err)
	}
	host, _ := os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	l := &Lock{f, Holder{Host: host, Boot: strings.TrimSpace(string(boot)), PID: os.Getpid(), Started: time.Now().UTC()}}
	if err := l.works(""); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// works writes down which run is at work, "" for none.
func (l *Lock) works(run string) error {
	l.holder.Run = run
	data, err := json.Marshal(l.holder)
	if err == nil {
		_, err = l.file.WriteAt(append(data, '\n'), 0)
	}
	if err == nil {
		err = l.file.Truncate(int64(len(data) + 1))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", l.file.Name(), obstacle(err))
	}
	return nil
}

// Release lets others have the lock.
func (l *Lock) Release() { l.file.Close() }

func readHolder(f *os.File) (h Holder) {
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil || json.NewDecoder(bytes.NewReader(data)).Decode(&h) != nil {
		return Holder{}
	}
	return h
}

// holder is who holds the workspace's lock at the moment, nil for nobody. It takes no lock for longer than the look.
func (w *Workspace) holder() *Holder {
	f, err := os.Open(w.state("lock"))
	if err != nil {
		return nil
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return nil
	}
	h := readHolder(f)
	return &h
}

// working reports whether a run is at work in the workspace.
func (w *Workspace) working() bool {
	h := w.holder()
	return h != nil && (h.Run != "" || h.PID == 0)
}
