package mgmt

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// maxPage is what one page of a document may have, in bytes.
const maxPage = 64 << 20

// Get asks for the document at a URL, and decodes it into v. Of a list it gets all pages, of the
// size that the URL says, and puts them together.
func Get(ctx context.Context, transport http.RoundTripper, address string, v any) error {
	whole, err := getPages(ctx, transport, address)
	if err != nil {
		return fmt.Errorf("asking %s: %w", address, err)
	}
	body, err := json.Marshal(whole)
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	return err
}

// getPages returns the fields of a document. Of one that has several pages the lists are joined, of all else the last
// page's counts.
func getPages(ctx context.Context, transport http.RoundTripper, address string) (map[string]json.RawMessage, error) {
	whole, lists := map[string]json.RawMessage{}, map[string][]json.RawMessage{}
	for cursor, more := "", true; more; more = cursor != "" {
		page, err := getPage(ctx, transport, address, cursor)
		if err != nil {
			return nil, err
		}
		cursor = ""
		if err := json.Unmarshal(page["next"], &cursor); page["next"] != nil && err != nil {
			return nil, err
		}
		delete(page, "next")
		for name, value := range page {
			var entries []json.RawMessage
			if json.Unmarshal(value, &entries) == nil && entries != nil {
				lists[name] = append(lists[name], entries...)
				continue
			}
			whole[name] = value
		}
	}
	for name, entries := range lists {
		joined, err := json.Marshal(append([]json.RawMessage{}, entries...))
		if err != nil {
			return nil, err
		}
		whole[name] = joined
	}
	return whole, nil
}

func getPage(ctx context.Context, transport http.RoundTripper, address, cursor string) (map[string]json.RawMessage, error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if cursor != "" {
		query := target.Query()
		query.Set("cursor", cursor)
		target.RawQuery = query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %.1000s", resp.Status, body)
	}
	var page map[string]json.RawMessage
	return page, json.Unmarshal(body, &page)
}
