package worker

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
)

// surroundings are what may end a process together with the session or the job that started it.
type surroundings struct {
	job    string // Slurm's, "" for none
	cgroup string // of this process, as /proc/self/cgroup has it
	logind string // logind.conf and what is beside it
	linger bool   // the user's processes may outlive their sessions
}

// shortLived tells why the worker may end with the login or the job that it was started from, and what to do. A session of
// its own does not save it from either.
func shortLived() []string {
	s := surroundings{job: os.Getenv("SLURM_JOB_ID")}
	cgroup, _ := os.ReadFile("/proc/self/cgroup")
	s.cgroup = string(cgroup)
	files, _ := filepath.Glob("/etc/systemd/logind.conf.d/*.conf")
	for _, path := range append([]string{"/etc/systemd/logind.conf"}, files...) {
		text, _ := os.ReadFile(path)
		s.logind += string(text) + "\n"
	}
	if u, err := user.Current(); err == nil {
		_, err := os.Stat(filepath.Join("/var/lib/systemd/linger", u.Username))
		s.linger = err == nil
	}
	return s.warnings()
}

var killUserProcesses = regexp.MustCompile(`(?mi)^\s*KillUserProcesses\s*=\s*(\S+)`)

func (s surroundings) warnings() (all []string) {
	if s.job != "" {
		all = append(all, fmt.Sprintf("the worker runs inside Slurm job %s and ends with it; for work that is to go on, give it a job of its own: sbatch --wrap 'quartet run --foreground'", s.job))
	}
	settings := killUserProcesses.FindAllStringSubmatch(s.logind, -1)
	kills := false
	if len(settings) > 0 {
		switch strings.ToLower(settings[len(settings)-1][1]) {
		case "yes", "true", "on", "1":
			kills = true
		}
	}
	if kills && !s.linger && strings.Contains(s.cgroup, "/session-") {
		all = append(all, "systemd ends your processes when you log out here (KillUserProcesses), and the worker with them; run `loginctl enable-linger`, and start the worker with `systemd-run --user quartet worker -C DIR`")
	}
	return all
}
