// validatorUrl null: the page would otherwise ask a server of the Swagger project for a badge.
SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#document",
  deepLinking: true,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
});
