package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Settings are which hub a client talks to, as whom, and where it keeps what it gets.
type Settings struct {
	Endpoint  string // such as "https://huggingface.co"
	Cache     string // folder
	Token     string // "" to read TokenFile
	TokenFile string // "" or a file that need not exist
	Offline   bool   // take everything from the cache
}

// Environment is the settings that the variables of Python's huggingface_hub make: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE,
// HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH and HF_HUB_OFFLINE.
func Environment(getenv func(string) string) Settings {
	user := getenv("HOME")
	path := func(name, otherwise string) string {
		p := getenv(name)
		if p == "" {
			return otherwise
		}
		if rest, ok := strings.CutPrefix(p, "~/"); ok {
			return filepath.Join(user, rest)
		}
		return p
	}
	home := path("HF_HOME", filepath.Join(path("XDG_CACHE_HOME", filepath.Join(user, ".cache")), "huggingface"))
	s := Settings{
		Endpoint:  "https://huggingface.co",
		Cache:     path("HF_HUB_CACHE", filepath.Join(home, "hub")),
		TokenFile: path("HF_TOKEN_PATH", filepath.Join(home, "token")),
		Offline:   slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(getenv("HF_HUB_OFFLINE"))),
	}
	if e := strings.TrimRight(getenv("HF_ENDPOINT"), "/"); e != "" {
		s.Endpoint = e
	}
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if s.Token == "" {
			s.Token = strings.TrimSpace(getenv(name))
		}
	}
	return s
}

// token is the secret to send to the hub, "" for none.
func (s Settings) token() (string, error) {
	token := s.Token
	if token == "" && s.TokenFile != "" {
		data, err := os.ReadFile(s.TokenFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read the token in %s: %w", s.TokenFile, obstacle(err))
		}
		token = strings.TrimSpace(string(data))
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("the token has characters that no token has; set HF_TOKEN to one from the hub's settings")
	}
	return token, nil
}

// endpoint is the address of the hub.
func (s Settings) endpoint() (*url.URL, error) {
	u, err := url.Parse(s.Endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return nil, errors.New("HF_ENDPOINT is no address of a hub; set it as in https://huggingface.co, or unset it")
	}
	return u, nil
}
