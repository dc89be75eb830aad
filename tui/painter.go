package tui

import (
	"bytes"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"
)

// painter puts frames on the terminal: at once, and only the cells that changed. Bubble Tea's own renderer looks for a new
// frame at a fixed rate instead, which costs a key half a period and an idle program a wake-up for each.
type painter struct {
	mu            sync.Mutex
	out           io.Writer
	environment   []string
	colours       colorprofile.Profile
	tty           *os.File // whose mode was changed, nil for none
	former        *term.State
	diff          *uv.TerminalRenderer
	cells         uv.ScreenBuffer
	changes       bytes.Buffer
	width, height int
	content       string
	lines         []string // of content
	cursor        tea.Cursor
	shown         bool // the cursor is
	mouse         bool
	synchronised  bool // the terminal shows what lies between two marks at once
}

// newPainter takes the terminal over: raw input, the alternate screen, no cursor.
func newPainter(in, out any, environment []string) (*painter, error) {
	p := &painter{out: out.(io.Writer), environment: environment, colours: colorprofile.TrueColor}
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		former, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return nil, err
		}
		p.tty, p.former = f, former
	}
	p.begin()
	_, err := io.WriteString(p.out, ansi.SetModeAltScreenSaveCursor+ansi.ResetModeTextCursorEnable+ansi.SetModeBracketedPaste+ansi.EraseEntireScreen)
	return p, err
}

// raw writes a sequence that draws nothing.
func (p *painter) raw(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	io.WriteString(p.out, text)
}

func (p *painter) profile(profile colorprofile.Profile) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.colours = profile
	p.diff.SetColorProfile(profile)
}

func (p *painter) synchronise() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.synchronised = true
}

// paint shows a frame.
func (p *painter) paint(content string, cursor *tea.Cursor, width, height int, mouse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	resized := width != p.width || height != p.height
	moved := cursor != nil && (!p.shown || cursor.X != p.cursor.X || cursor.Y != p.cursor.Y)
	if content == p.content && !resized && !moved && (cursor != nil) == p.shown && mouse == p.mouse {
		return
	}
	if resized {
		p.width, p.height = width, height
		p.begin()
	}
	if resized || content != p.content {
		p.draw(content, resized)
		p.diff.Render(p.cells.RenderBuffer)
	}
	if cursor != nil {
		p.diff.MoveTo(cursor.X, cursor.Y)
	}
	if p.diff.Flush() != nil {
		return // of a buffer, which cannot fail
	}
	var out bytes.Buffer
	if p.synchronised && p.changes.Len() > 0 {
		out.WriteString(ansi.SetModeSynchronizedOutput)
	}
	if p.shown && (cursor == nil || p.changes.Len() > 0) {
		out.WriteString(ansi.ResetModeTextCursorEnable)
		p.shown = false
	}
	changed := p.changes.Len() > 0
	out.Write(p.changes.Bytes())
	p.changes.Reset()
	if cursor != nil {
		p.cursor = *cursor
		if !p.shown {
			out.WriteString(ansi.SetModeTextCursorEnable)
			p.shown = true
		}
	}
	if p.synchronised && changed {
		out.WriteString(ansi.ResetModeSynchronizedOutput)
	}
	if mouse != p.mouse {
		p.mouse = mouse
		if mouse {
			out.WriteString(ansi.SetModeMouseButtonEvent + ansi.SetModeMouseExtSgr)
		} else {
			out.WriteString(ansi.ResetModeMouseButtonEvent + ansi.ResetModeMouseExtSgr)
		}
	}
	p.out.Write(out.Bytes())
}

// begin forgets what is on the screen. The renderer is a new one for each size: one whose screen has become wider takes the
// columns that it has drawn there to be empty.
func (p *painter) begin() {
	p.diff = uv.NewTerminalRenderer(&p.changes, p.environment)
	p.diff.SetFullscreen(true)
	p.diff.SetRelativeCursor(false)
	p.diff.SetTabStops(-1)
	p.diff.SetColorProfile(p.colours)
	p.diff.Erase()
	p.cells = uv.NewScreenBuffer(p.width, p.height)
}

// scrollFrom is from which part of the lines on, if they change, it is tried whether they have only moved, which takes a look
// at all.
const scrollFrom = 1.0 / 3

// draw puts the lines of a frame that are not those of the frame before into the cells, or all of them.
func (p *painter) draw(content string, all bool) {
	former := p.lines
	p.content, p.lines = content, strings.Split(content, "\n")
	changed := 0
	for y, line := range p.lines {
		if all || y >= len(former) || line != former[y] {
			uv.NewStyledString(line).Draw(p.cells, uv.Rect(0, y, p.width, 1))
			changed++
		}
	}
	scrolled := float64(changed) >= scrollFrom*float64(p.height)
	p.diff.SetScrollOptim(scrolled)
	if scrolled {
		for y := range p.height {
			p.cells.TouchLine(0, y, p.width)
		}
	}
}

// close gives the terminal back as it was.
func (p *painter) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := ansi.ResetStyle + ansi.ResetModeBracketedPaste + ansi.ResetModeAltScreenSaveCursor + ansi.SetModeTextCursorEnable
	if p.mouse {
		text = ansi.ResetModeMouseButtonEvent + ansi.ResetModeMouseExtSgr + text
	}
	io.WriteString(p.out, text)
	if p.former != nil {
		term.Restore(int(p.tty.Fd()), p.former)
	}
}

// watchSize tells post the terminal's size, now and whenever it changes, until done is closed.
func watchSize(out any, post func(tea.Msg), done <-chan struct{}) {
	f, ok := out.(*os.File)
	if !ok {
		return
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
			if w, h, err := term.GetSize(int(f.Fd())); err == nil {
				post(tea.WindowSizeMsg{Width: w, Height: h})
			}
		case <-done:
			return
		}
	}
}

// painted is the model whose frames go to a painter.
type painted struct {
	*model
	painter *painter
}

// Update is the model's.
func (p painted) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.ColorProfileMsg:
		p.painter.profile(msg.Profile)
	case tea.ModeReportMsg:
		if msg.Mode == ansi.ModeSynchronizedOutput && msg.Value == ansi.ModeReset {
			p.painter.synchronise()
		}
	}
	_, cmd := p.model.Update(msg)
	return p, cmd
}

// View paints the frame; what it returns is shown by nobody.
func (p painted) View() tea.View {
	v := p.model.View()
	if p.width > 0 && p.height > 0 {
		p.painter.paint(v.Content, v.Cursor, p.width, p.height, v.MouseMode != tea.MouseModeNone)
	}
	return v
}
