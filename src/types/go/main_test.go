package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func ask(route, path string) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	handler(route).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
	return recorder
}

func TestThePageIsAtTheRouteAndSaysTheName(t *testing.T) {
	for _, at := range []struct{ route, path string }{{"/a/b", "/a/b"}, {"/a/b", "/a/b/"}, {"/", "/"}} {
		answer := ask(at.route, at.path)
		if answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), "{{name}}") {
			t.Errorf("GET %s: %d %s", at.path, answer.Code, answer.Body)
		}
	}
}

func TestTheHealthPathIsBelowTheRoute(t *testing.T) {
	for _, at := range []struct{ route, path string }{{"/a", "/a/health"}, {"/", "/health"}} {
		if answer := ask(at.route, at.path); answer.Code != http.StatusOK {
			t.Errorf("GET %s: %d", at.path, answer.Code)
		}
	}
}

func TestWhatIsNotThereIs404(t *testing.T) {
	for _, path := range []string{"/a/none", "/"} {
		if answer := ask("/a", path); answer.Code != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, answer.Code)
		}
	}
}
