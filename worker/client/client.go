package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"quartet/event"
	"quartet/visible"
)

// Client asks the worker of one workspace. All its methods may be called at once.
type Client struct {
	socket string
	http   http.Client
}

// ErrNone is the error of Dial for a workspace without a worker.
var ErrNone = errors.New("no worker runs in this workspace; `quartet run` starts one")

// ErrLost is wrapped by the error of a stream whose worker went away.
var ErrLost = errors.New("the worker is gone; what it had finished is kept, and the next run goes on from its last checkpoint")

// ErrBehind is the error of Events for a client that has read so slowly that the worker no longer holds what comes next. A new
// Snapshot, and the events after it, bring it up to date.
var ErrBehind = errors.New("too slow to follow the worker; what was missed is in its journal")

// Mismatch is the error of Dial for a worker of another version of the program.
type Mismatch struct {
	Worker Info
	Own    string // this program's version
}

// Error names both versions and says what to do.
func (m Mismatch) Error() string {
	return fmt.Sprintf("worker %d is quartet %s, this is %s; `quartet stop` ends it, keeping its checkpoint",
		m.Worker.PID, visible.Line(m.Worker.Version), m.Own)
}

// Dial finds the worker of a workspace. Its error is ErrNone where none runs, also when a killed one has left its socket, and
// a Mismatch beside a Client where it is of another version: such a client is good for Info and Stop only.
func Dial(workspace string) (*Client, error) {
	socket, err := Socket(workspace)
	if err != nil {
		return nil, err
	}
	return dial(socket)
}

func dial(socket string) (*Client, error) {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	info, err := c.Info(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNone
	case err != nil:
		return nil, fmt.Errorf("ask the worker at %s: %w; `quartet logs` shows what it did", socket, err)
	case info.Version != Version():
		return c, Mismatch{*info, Version()}
	}
	return c, nil
}

// Info is who the worker is and what it does.
func (c *Client) Info(ctx context.Context) (*Info, error) {
	var info Info
	return &info, c.ask(ctx, "GET", "/info", nil, &info)
}

// Snapshot is the workspace's state in one piece.
func (c *Client) Snapshot(ctx context.Context) (*Snapshot, error) {
	var s Snapshot
	return &s, c.ask(ctx, "GET", "/snapshot", nil, &s)
}

// Events gives the events after a number to visit, until visit's error, ctx's, ErrBehind, or one that wraps ErrLost.
func (c *Client) Events(ctx context.Context, after int64, visit func(Numbered) error) error {
	return c.stream(ctx, "GET", "/events?after="+strconv.FormatInt(after, 10), nil, func(line []byte) error {
		var n struct {
			Numbered
			Behind
		}
		if err := json.Unmarshal(line, &n); err != nil {
			return fmt.Errorf("read the worker's events: %w", err)
		}
		if n.Behind.Behind {
			return ErrBehind
		}
		return visit(n.Numbered)
	}, false)
}

// Plan is what a run of the stages would do, which it does not do.
func (c *Client) Plan(ctx context.Context, r RunRequest) (parts []event.PlanPart, err error) {
	return parts, c.ask(ctx, "POST", "/plan", r, &parts)
}

// Run starts stages and returns at once; events tell how it goes. It is an error while a run is at work.
func (c *Client) Run(ctx context.Context, r RunRequest) error {
	return c.ask(ctx, "POST", "/run", r, nil)
}

// Cancel ends the run at work, if any; training leaves a checkpoint.
func (c *Client) Cancel(ctx context.Context) error { return c.ask(ctx, "POST", "/cancel", nil, nil) }

// Chat gives the variants' answers to visit, piece by piece, until all have ended or ctx has, which ends them.
func (c *Client) Chat(ctx context.Context, r ChatRequest, visit func(ChatEvent)) error {
	return c.stream(ctx, "POST", "/chat", r, func(line []byte) error {
		var e ChatEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read the worker's answers: %w", err)
		}
		visit(e)
		return nil
	}, true)
}

// Measure evaluates variants as they lie there, all of them without names, and writes nothing. It returns the content of a
// results.json; progress goes to visit. When ctx ends, so does the evaluation.
func (c *Client) Measure(ctx context.Context, variants []string, visit func(event.Event)) (results json.RawMessage, err error) {
	failed := ""
	err = c.stream(ctx, "POST", "/measure", MeasureRequest{variants}, func(line []byte) error {
		var e event.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read the worker's progress: %w", err)
		}
		switch e.Kind {
		case event.Results:
			results = e.Results
		case event.StageFailed:
			failed = e.Text
		default:
			visit(e)
		}
		return nil
	}, true)
	switch {
	case err != nil:
		return nil, err
	case failed != "":
		return nil, errors.New(failed)
	case results == nil:
		return nil, ErrLost
	}
	return results, nil
}

// Report writes the reports anew from results.json, with history compared with former runs, and returns their paths.
func (c *Client) Report(ctx context.Context, history bool) (written []string, err error) {
	return written, c.ask(ctx, "POST", "/report", ReportRequest{history}, &written)
}

// Stop ends the worker and what it does, keeping a checkpoint, and returns when its process is gone.
func (c *Client) Stop(ctx context.Context) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if err := c.ask(ctx, "POST", "/stop", nil, nil); err != nil {
		return err
	}
	for !ended(info.PID) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the worker (process %d) has not ended yet: %w; it is finishing a step and ends after it", info.PID, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// ended reports whether a process has ended, also where nobody has asked for its exit status yet: in a container the first
// process may never do so.
func ended(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(state, []byte("Z"))
}

// Refusal is the body of an answer that is an error.
type Refusal struct {
	Error string `json:"error"`
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var in io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://worker"+path, in)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("%w (%w)", ErrLost, errors.Unwrap(err))
	case answer.StatusCode/100 != 2:
		defer answer.Body.Close()
		var why Refusal
		if json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&why) != nil || why.Error == "" {
			return nil, fmt.Errorf("the worker answered %s to %s; `quartet logs` shows what it did", answer.Status, path)
		}
		return nil, errors.New(why.Error)
	}
	return answer, nil
}

func (c *Client) ask(ctx context.Context, method, path string, body, into any) error {
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return fmt.Errorf("%w (reading its answer: %w)", ErrLost, err)
	}
	return nil
}

// stream gives each line of an answer to visit. ends says whether the answer has an end of its own.
func (c *Client) stream(ctx context.Context, method, path string, body any, visit func([]byte) error, ends bool) error {
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	r := bufio.NewReaderSize(answer.Body, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		switch {
		case err == io.EOF && ends && len(line) == 0:
			return nil
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return ErrLost
		}
		if err := visit(line); err != nil {
			return err
		}
	}
}
