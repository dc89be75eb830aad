package tui

import (
	"strings"

	"github.com/charmbracelet/colorprofile"
)

// role is what a piece of text is for; the theme knows how it looks.
type role int

const (
	plain   role = iota
	strong       // names and headings
	dim          // what can be overlooked
	accent       // what is selected or can be done
	good         // done, best
	warn         // stale, odd
	bad          // failed
	chosen       // the selected row or tab
	added        // of a diff: only here
	removed      // of a diff: only in base
	rule         // lines between panes
	roles
)

// theme is how roles look on this terminal, and the glyphs that it can show.
type theme struct {
	sgr   [roles]string // what switches a role on, "" for nothing
	glyph glyphs
	ascii bool
}

// glyphs are the characters that are not letters.
type glyphs struct {
	rule, bar, full, empty, mark, more, dot, none, tick, cross, best, cursor string
	spark                                                                    []string // from low to high
}

var (
	unicodeGlyphs = glyphs{"─", "│", "█", "░", "▸", "…", "·", "–", "✓", "✗", "*", "┆", []string{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}}
	asciiGlyphs   = glyphs{"-", "|", "#", ".", ">", "~", "|", "-", "+", "x", "*", "|", []string{"_", ".", ",", "-", "=", "+", "*", "#"}}
)

// palette is a colour of each role as the parameters of an SGR sequence.
type palette [roles]string

// The palettes. Sixteen colours are the terminal's own, which its user has made readable on its background; without colours
// weight alone tells roles apart, and wherever a role means something a word or a mark says it too.
var (
	truecolorDark = palette{strong: "1", dim: "38;2;128;134;146", accent: "38;2;122;190;255", good: "38;2;124;207;141", warn: "38;2;229;192;103",
		bad: "1;38;2;255;117;117", chosen: "1;38;2;16;22;32;48;2;122;190;255", added: "38;2;124;207;141", removed: "9;38;2;255;117;117", rule: "38;2;76;84;98"}
	truecolorLight = palette{strong: "1", dim: "38;2;104;110;122", accent: "38;2;0;92;175", good: "38;2;18;120;52", warn: "38;2;146;94;0",
		bad: "1;38;2;190;18;34", chosen: "1;38;2;255;255;255;48;2;0;92;175", added: "38;2;18;120;52", removed: "9;38;2;190;18;34", rule: "38;2;178;184;194"}
	dark256 = palette{strong: "1", dim: "38;5;245", accent: "38;5;111", good: "38;5;114", warn: "38;5;179",
		bad: "1;38;5;210", chosen: "1;38;5;234;48;5;111", added: "38;5;114", removed: "9;38;5;210", rule: "38;5;240"}
	light256 = palette{strong: "1", dim: "38;5;242", accent: "38;5;25", good: "38;5;28", warn: "38;5;94",
		bad: "1;38;5;124", chosen: "1;38;5;231;48;5;25", added: "38;5;28", removed: "9;38;5;124", rule: "38;5;250"}
	dark16 = palette{strong: "1", dim: "90", accent: "96", good: "92", warn: "93",
		bad: "1;91", chosen: "7", added: "92", removed: "9;91", rule: "90"}
	light16 = palette{strong: "1", dim: "2", accent: "34", good: "32", warn: "33",
		bad: "1;31", chosen: "7", added: "32", removed: "9;31", rule: "2"}
	noColor = palette{strong: "1", dim: "2", accent: "1", good: "", warn: "", bad: "1", chosen: "7", added: "4", removed: "9", rule: "2"}
)

// newTheme is the theme for what a terminal can show. A terminal of unknown abilities gets no sequences at all.
func newTheme(profile colorprofile.Profile, dark, ascii bool) *theme {
	t := &theme{glyph: unicodeGlyphs, ascii: ascii}
	if ascii {
		t.glyph = asciiGlyphs
	}
	var p palette
	switch {
	case profile == colorprofile.TrueColor && dark:
		p = truecolorDark
	case profile == colorprofile.TrueColor:
		p = truecolorLight
	case profile == colorprofile.ANSI256 && dark:
		p = dark256
	case profile == colorprofile.ANSI256:
		p = light256
	case profile == colorprofile.ANSI && dark:
		p = dark16
	case profile == colorprofile.ANSI:
		p = light16
	case profile == colorprofile.ASCII:
		p = noColor
	}
	for r, parameters := range p {
		if parameters != "" {
			t.sgr[r] = "\x1b[" + parameters + "m"
		}
	}
	return t
}

// paint gives text the look of a role.
func (t *theme) paint(r role, text string) string {
	if t.sgr[r] == "" || text == "" {
		return text
	}
	return t.sgr[r] + text + "\x1b[m"
}

// asciiOnly reports whether the locale of an environment has no Unicode characters. An environment that names no locale is
// taken to have them, because ssh often passes none on; the console of Linux has too few glyphs.
func asciiOnly(getenv func(string) string) bool {
	if getenv("TERM") == "linux" {
		return true
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(getenv(name)); value != "" {
			return !strings.Contains(value, "utf-8") && !strings.Contains(value, "utf8")
		}
	}
	return false
}
