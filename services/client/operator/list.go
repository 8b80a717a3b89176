package operator

import (
	"context"
	"encoding/json"
	"iter"
	"net/url"

	"github.com/connswap/connswap/shared/migration"
)

// Session is a stream that runs, or has ended lately.
type Session struct {
	ConnectionID string `json:"connection_id"`
	Stream
}

// Workers lists the registered workers, by label, page by page. An error is the last pair.
func (c *Client) Workers(ctx context.Context) iter.Seq2[Worker, error] {
	return list[Worker](ctx, c, "workers", nil)
}

// Connections lists the clients' connections, by age. It is like Workers in everything else; whatever comes and goes
// meanwhile, none comes twice, and none is left out that is there all the time.
func (c *Client) Connections(ctx context.Context) iter.Seq2[Connection, error] {
	return list[Connection](ctx, c, "connections", nil)
}

// Sessions lists the streams in the given states, or all, by age. It is like Connections in everything else.
func (c *Client) Sessions(ctx context.Context, states ...string) iter.Seq2[Session, error] {
	return list[Session](ctx, c, "sessions", url.Values{"state": states})
}

// Swaps lists the swaps that are over, in the order of their ends. It is like Connections in everything else.
func (c *Client) Swaps(ctx context.Context) iter.Seq2[migration.Record, error] {
	return list[migration.Record](ctx, c, "swaps", nil)
}

// list follows the pages of a list. Each page may take as long as any answer.
func list[T any](ctx context.Context, c *Client, name string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for cursor := ""; ; {
			page, next, err := getPage[T](ctx, c, name, query, cursor)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, entry := range page {
				if !yield(entry, nil) {
					return
				}
			}
			if cursor = next; cursor == "" {
				return
			}
		}
	}
}

// getPage asks for the page after a cursor.
func getPage[T any](ctx context.Context, c *Client, name string, query url.Values, cursor string) (page []T, next string, err error) {
	ctx, cancel := within(ctx, answerTimeout)
	defer cancel()
	asked := url.Values{}
	for key, values := range query {
		asked[key] = values
	}
	if cursor != "" {
		asked.Set("cursor", cursor)
	}
	text, err := c.get(ctx, "/v1/"+name+"?"+asked.Encode())
	if err != nil {
		return nil, "", err
	}
	var document map[string]json.RawMessage
	if err := decode(text, name, &document); err != nil {
		return nil, "", err
	}
	if err := decode(document[name], name, &page); err != nil {
		return nil, "", err
	}
	if document["next"] != nil {
		err = decode(document["next"], "cursor", &next)
	}
	return page, next, err
}
