package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"quartet/worker/client"
)

// TestClientsKilled has a worker run everything while clients that follow it are killed, some with their process group; the
// artefacts are those of an undisturbed run. Then the worker is stopped, and no process is left.
func TestClientsKilled(t *testing.T) {
	quartet := program(t)
	undisturbed, dir := smallWorkspace(t), smallWorkspace(t)
	if out, err := exec.Command(quartet, "run", "--foreground", "-C", undisturbed).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(quartet, "run", "--detach", "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c, err := client.Dial(dir)
	var other client.Mismatch // the test's own program is another version
	if err != nil && !errors.As(err, &other) {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			c.Stop(context.Background())
		}
	})
	for i := range 5 {
		cmd := exec.Command(quartet, "attach", "--json", "-C", dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(30+40*i) * time.Millisecond)
		signal := syscall.SIGKILL
		if i%2 == 1 {
			signal = syscall.SIGHUP
		}
		if err := syscall.Kill(-cmd.Process.Pid, signal); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
	}
	info, err := c.Info(t.Context())
	for deadline := time.Now().Add(30 * time.Second); err == nil && info.Run != "" && time.Now().Before(deadline); info, err = c.Info(t.Context()) {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil || info.Run != "" {
		t.Fatalf("the run did not end: %+v, %v", info, err)
	}
	want := read(t, undisturbed)
	for name, data := range read(t, dir) {
		if !bytes.Equal(data, want[name]) {
			t.Errorf("%s differs from an undisturbed run's", name)
		}
	}
	started := time.Now()
	if out, err := exec.Command(quartet, "stop", "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	stopped = true
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if err := syscall.Kill(info.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", info.PID, err)
	}
}
