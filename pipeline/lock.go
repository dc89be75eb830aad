package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// Holder is the process that holds a workspace's lock.
type Holder struct {
	Host    string    `json:"host"`
	Boot    string    `json:"boot"` // the kernel's boot id: the process id means something within one boot only
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
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
	return fmt.Sprintf("lock workspace: %s works here; wait for it or stop it", l.Holder)
}

// lock takes the workspace's lock, which the system lets go when the process ends, however it ends.
func (w *Workspace) lock() (release func(), err error) {
	path := w.state("lock")
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
	data, err := json.Marshal(Holder{host, strings.TrimSpace(string(boot)), os.Getpid(), time.Now().UTC()})
	if err == nil {
		err = errors.Join(f.Truncate(0), writeAt(f, data))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, obstacle(err))
	}
	return func() { f.Close() }, nil
}

func writeAt(f *os.File, data []byte) error {
	_, err := f.WriteAt(data, 0)
	return err
}

func readHolder(f *os.File) (h Holder) {
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil || json.Unmarshal(data, &h) != nil {
		return Holder{}
	}
	return h
}

// holder is who works in the workspace at the moment, nil for nobody. It takes no lock for longer than the look.
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
