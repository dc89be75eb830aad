package hub

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
)

// errMoved is a commit that the hub refuses because of another one in between.
var errMoved = errors.New("other commits come in between")

// Commit makes one commit of all that was put since the last one, and none where nothing differs from what is there.
func (r *Repository) Commit(ctx context.Context) error {
	if err := r.commit(ctx); err != nil {
		return fmt.Errorf("commit to %s: %w", r, ended(ctx, err))
	}
	return nil
}

func (r *Repository) commit(ctx context.Context) error {
	const tries = 2
	for try := 1; len(r.changes) > 0; try++ {
		err := r.push(ctx)
		switch {
		case err == nil:
			r.changes = nil
			return nil
		case !errors.Is(err, errMoved):
			return err
		}
		// It may be this very commit, whose answer was lost.
		if _, err := r.read(ctx); err != nil {
			return err
		}
		r.changes = slices.DeleteFunc(r.changes, func(c change) bool {
			there, ok := r.there[c.name]
			return ok && c.is(there)
		})
		if try == tries && len(r.changes) > 0 {
			return fmt.Errorf("%w; run again when nobody else changes the repository, nothing large is sent twice", err)
		}
	}
	return nil
}

// push sends the changes as a commit upon the newest one that was seen.
func (r *Repository) push(ctx context.Context) error {
	at, err := r.at(r.repo.api() + "/commit/" + r.repo.Revision)
	if err != nil {
		return err
	}
	var size count64
	if err := r.lines(&size); err != nil {
		return err
	}
	body := func() (io.ReadCloser, error) {
		out, in := io.Pipe()
		go func() { in.CloseWithError(r.lines(in)) }()
		return out, nil
	}
	var made struct{ CommitOID string }
	_, err = r.c.exchange(ctx, request{method: http.MethodPost, to: at, header: http.Header{"Content-Type": {"application/x-ndjson"}}, body: body, size: int64(size), long: true},
		&made, func(resp *http.Response) error {
			switch resp.StatusCode {
			case http.StatusPreconditionFailed, http.StatusConflict:
				return errMoved
			case http.StatusBadRequest, http.StatusUnprocessableEntity:
				return fmt.Errorf("the hub answered %d to the files; check the lines between --- in README.md, if that is among them", resp.StatusCode)
			}
			return r.refusal(resp)
		})
	if err == nil && commitName.MatchString(made.CommitOID) {
		r.head = made.CommitOID
	}
	return err
}

// count64 counts what is written.
type count64 int64

func (c *count64) Write(p []byte) (int, error) {
	*c += count64(len(p))
	return len(p), nil
}

// lines writes the commit: lines of JSON, the first with what is said of it, the others with a file each.
func (r *Repository) lines(w io.Writer) error {
	summary := fmt.Sprintf("Upload %d files with Quartet", len(r.changes))
	if len(r.changes) == 1 {
		summary = fmt.Sprintf("Upload %s with Quartet", r.changes[0].name)
	}
	write := func(key string, value any) error {
		return json.NewEncoder(w).Encode(map[string]any{"key": key, "value": value})
	}
	if err := write("header", map[string]any{"summary": summary, "description": "", "parentCommit": r.head}); err != nil {
		return err
	}
	for _, c := range r.changes {
		var err error
		if c.large {
			err = write("lfsFile", map[string]any{"path": c.name, "algo": "sha256", "oid": c.sha256, "size": c.size})
		} else {
			err = c.content(w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// content writes the line of a file that git keeps itself. The file is not brought into memory.
func (c change) content(w io.Writer) error {
	f, err := os.Open(c.path)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.path, obstacle(err))
	}
	defer f.Close()
	name, err := json.Marshal(c.name)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, `{"key":"file","value":{"path":%s,"encoding":"base64","content":"`, name); err != nil {
		return err
	}
	encoder, sum := base64.NewEncoder(base64.StdEncoding, w), sha256.New()
	if _, err := io.Copy(io.MultiWriter(encoder, sum), io.LimitReader(f, c.size)); err != nil {
		return err
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != c.sha256 {
		return fmt.Errorf("read %s: it changed since it was put; run again", c.path)
	}
	_, err = io.WriteString(w, "\"}}\n")
	return err
}
