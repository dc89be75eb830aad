package tui

import (
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// place is where a key works.
type place int

const (
	everywhere place = iota
	inLoss
	inChat
	inLog
	typing   // while text is being written
	inDialog // while a question or a list is open
)

// placeNames are the headings of the list of keys.
var placeNames = []string{"Everywhere", "Loss", "Chat", "Log", "While writing", "Lists and questions"}

// binding is one thing that keys do. The table of bindings drives what keys do, the help and the README's list.
type binding struct {
	action string // its name in [keys] of config.toml
	keys   []string
	help   string
	where  place
	do     func(*model) tea.Cmd
}

// bindings is the table of keys. Within a place and everywhere a key stands once.
func bindings() []binding {
	all := []binding{
		{"help", []string{"?"}, "all keys", everywhere, (*model).openHelp},
		{"quit", []string{"q", "ctrl+c"}, "leave; the worker goes on", everywhere, (*model).leave},
		{"stop", []string{"Q"}, "stop the worker and leave, after asking", everywhere, (*model).askStop},
		{"next", []string{"tab"}, "focus the next pane", everywhere, func(m *model) tea.Cmd { return m.turn(1) }},
		{"previous", []string{"shift+tab"}, "focus the pane before", everywhere, func(m *model) tea.Cmd { return m.turn(-1) }},
		{"zoom", []string{"z"}, "give the pane, or the answer, the whole screen", everywhere, (*model).toggleZoom},
		{"run_all", []string{"a"}, "run what is stale", everywhere, (*model).runStale},
		{"run", []string{"r"}, "rerun the stage, after showing what becomes stale", everywhere, func(m *model) tea.Cmd { return m.rerun(false) }},
		{"run_on", []string{"R"}, "rerun the stage and those after it", everywhere, func(m *model) tea.Cmd { return m.rerun(true) }},
		{"cancel", []string{"c"}, "cancel the run or the answers; asks when work would be lost", everywhere, (*model).cancel},
		{"loss", []string{"l"}, "the loss", everywhere, func(m *model) tea.Cmd { return m.show(lossPane) }},
		{"chat", []string{"t"}, "talk: four answers to a prompt", everywhere, func(m *model) tea.Cmd { return m.show(chatPane) }},
		{"results", []string{"e"}, "the evaluation's results", everywhere, func(m *model) tea.Cmd { return m.show(resultsPane) }},
		{"log", []string{"o"}, "the log", everywhere, func(m *model) tea.Cmd { return m.show(logPane) }},
		{"settings", []string{","}, "the settings: config.toml as a form", everywhere, (*model).openSettings},
		{"copy", []string{"y"}, "copy what is selected, by the terminal (OSC 52)", everywhere, (*model).copy},
		{"worker", []string{"w"}, "start or find the worker again", everywhere, (*model).reopen},
		{"up", []string{"up", "k"}, "up", everywhere, func(m *model) tea.Cmd { return m.scroll(-1) }},
		{"down", []string{"down", "j"}, "down", everywhere, func(m *model) tea.Cmd { return m.scroll(1) }},
		{"page_up", []string{"pgup"}, "a page up", everywhere, func(m *model) tea.Cmd { return m.scroll(-m.page()) }},
		{"page_down", []string{"pgdown", "space"}, "a page down", everywhere, func(m *model) tea.Cmd { return m.scroll(m.page()) }},
		{"top", []string{"home", "g"}, "to the beginning", everywhere, func(m *model) tea.Cmd { return m.scroll(-far) }},
		{"bottom", []string{"end", "G"}, "to the end", everywhere, func(m *model) tea.Cmd { return m.scroll(far) }},
		{"left", []string{"left"}, "the answer to the left; in help and lists: back", everywhere, func(m *model) tea.Cmd { return m.sideways(-1) }},
		{"right", []string{"right"}, "the answer to the right", everywhere, func(m *model) tea.Cmd { return m.sideways(1) }},
	}
	for i, name := range append(slices.Clone(stageNames), uploadStage) {
		all = append(all, binding{"stage_" + name, []string{fmt.Sprint(i + 1)}, "open stage " + name, everywhere, func(m *model) tea.Cmd { return m.openStage(i) }})
	}
	return append(all,
		binding{"log_y", []string{"L"}, "logarithmic or linear", inLoss, func(m *model) tea.Cmd { m.loss.linear = !m.loss.linear; return nil }},
		binding{"x_axis", []string{"x"}, "x by steps, tokens or time", inLoss, func(m *model) tea.Cmd { m.loss.nextAxis(); return nil }},
		binding{"series", []string{"s"}, "loss, gradient norm or learning rate", inLoss, func(m *model) tea.Cmd { m.loss.nextSeries(); return nil }},

		binding{"prompt", []string{"i", "enter"}, "write a prompt", inChat, (*model).editPrompt},
		binding{"regenerate", []string{"n"}, "the selected answer anew", inChat, func(m *model) tea.Cmd { return m.regenerate(false) }},
		binding{"regenerate_all", []string{"N"}, "all answers anew", inChat, func(m *model) tea.Cmd { return m.regenerate(true) }},
		binding{"race", []string{"f"}, "answer all at once (timings then are not comparable), or one after another", inChat, (*model).toggleRace},
		binding{"sampling", []string{"p"}, "temperature, top-k, top-p, penalty, length, seed", inChat, (*model).openSampling},
		binding{"diff", []string{"d"}, "mark what differs from base", inChat, (*model).toggleDiff},
		binding{"sync", []string{"s"}, "scroll the answers together, or each alone", inChat, (*model).toggleSync},
		binding{"blind", []string{"b"}, "hide and shuffle the names, for a vote", inChat, (*model).toggleBlind},
		binding{"vote", []string{"v"}, "vote for the selected answer", inChat, (*model).vote},
		binding{"history", []string{"h"}, "former chats", inChat, (*model).openHistory},
		binding{"export", []string{"x"}, "write this session's chats as Markdown and JSON", inChat, (*model).export},

		binding{"filter", []string{"/"}, "show the lines that hold a text", inLog, (*model).editFilter},
		binding{"errors", []string{"f"}, "all lines, warnings and failures, or failures alone", inLog, func(m *model) tea.Cmd { m.log.nextLevel(); return nil }},

		binding{"send", []string{"enter"}, "send, or accept", typing, (*model).acceptText},
		binding{"newline", []string{"alt+enter", "ctrl+j", "shift+enter"}, "a new line", typing, (*model).newLine},
		binding{"stop_writing", []string{"esc", "ctrl+c"}, "leave the text as it is", typing, (*model).leaveText},
		binding{"next_writing", []string{"tab"}, "focus the next pane", typing, func(m *model) tea.Cmd { m.leaveText(); return m.turn(1) }},

		binding{"accept", []string{"enter", "y"}, "accept, open or edit", inDialog, (*model).accept},
		binding{"close", []string{"esc", "n", "q", "?", "left", "ctrl+c"}, "close, or no", inDialog, (*model).closeDialog},
	)
}

// rebind puts the keys that a configuration gives actions into the table. Its error names the first action that does not
// exist or key that would do two things in one place.
func rebind(table []binding, keys map[string][]string) error {
	for action, given := range keys {
		at := slices.IndexFunc(table, func(b binding) bool { return b.action == action })
		if at < 0 {
			return fmt.Errorf("config.toml [keys]: there is no action %q; the help lists them", action)
		}
		table[at].keys = given
	}
	for i, b := range table {
		for _, key := range b.keys {
			for _, other := range table[:i] {
				clash := other.where == b.where || min(other.where, b.where) == everywhere && max(other.where, b.where) < typing
				if clash && slices.Contains(other.keys, key) && (len(keys[b.action]) > 0 || len(keys[other.action]) > 0) {
					return fmt.Errorf("config.toml [keys]: %q would be both %s and %s; give one of them another key", key, other.action, b.action)
				}
			}
		}
	}
	return nil
}

// find is the binding of a key in a place, nil for none. A place's own keys come before those that work everywhere.
func find(table []binding, where place, key string) *binding {
	var fallback *binding
	for i := range table {
		if !slices.Contains(table[i].keys, key) {
			continue
		}
		if table[i].where == where {
			return &table[i]
		}
		if table[i].where == everywhere && where < typing {
			fallback = &table[i]
		}
	}
	return fallback
}

// keyOf is the first key of an action, as it is shown.
func (m *model) keyOf(action string) string {
	for _, b := range m.keys {
		if b.action == action && len(b.keys) > 0 {
			return b.keys[0]
		}
	}
	return "?"
}

// KeyList is the list of keys in Markdown, for the README.
func KeyList() string {
	var out strings.Builder
	for where, name := range placeNames {
		fmt.Fprintf(&out, "- **%s:**", name)
		separator := " "
		for _, b := range bindings() {
			if b.where == place(where) {
				fmt.Fprintf(&out, "%s`%s` %s", separator, strings.Join(b.keys, "` `"), b.help)
				separator = "; "
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}
