package eval

import (
	"os"
	"runtime"
	"strings"

	"quartet/kernels"
)

// Machine is what the figures were measured on.
type Machine struct {
	Device    string `json:"device"` // the backend's name
	GPU       string `json:"gpu,omitempty"`
	Processor string `json:"processor,omitempty"`
	Threads   int    `json:"threads"`
	OS        string `json:"os"`
	Arch      string `json:"arch"`
	Go        string `json:"go"`
}

// String names what computed: the GPU, or the processor and the backend.
func (m Machine) String() string {
	switch {
	case m.GPU != "":
		return m.GPU
	case m.Processor != "":
		return m.Processor + ", " + m.Device
	}
	return m.Device
}

// ThisMachine describes the machine at hand and a backend on it.
func ThisMachine(b kernels.Backend) Machine {
	m := Machine{Device: b.Name(), Threads: runtime.GOMAXPROCS(0), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version()}
	if g, ok := b.(interface{ GPU() string }); ok {
		m.GPU = g.GPU()
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	return m
}
