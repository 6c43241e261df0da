Redoc.init(
  "openapi.json",
  {
    // the index is built by a script made at run time, which the content-security policy forbids
    disableSearch: true,
    hideDownloadButton: false,
    theme: { typography: { fontFamily: "system-ui, sans-serif", headings: { fontFamily: "system-ui, sans-serif" } } },
  },
  document.getElementById("redoc"),
);
