package client

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"runtime/debug"
	"sync"
)

// Version is the version of this program: the revision it was built from, or the digest of its file where it was built from
// none or from a changed tree.
var Version = sync.OnceValue(func() string {
	revision, clean := "", false
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value[:min(12, len(s.Value))]
			case "vcs.modified":
				clean = s.Value == "false"
			}
		}
	}
	if revision != "" && clean {
		return revision
	}
	f, err := os.Open(self)
	if err != nil {
		return revision + "+unknown"
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return revision + "+unknown"
	}
	return revision + "+" + hex.EncodeToString(sum.Sum(nil)[:6])
})

// self is the file of this program, also when another has taken its place since it was started.
const self = "/proc/self/exe"
