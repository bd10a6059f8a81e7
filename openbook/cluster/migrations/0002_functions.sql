-- What the statements of openbook/knowledge use and only SQLite has. A path is `$."key"`, one member of an object.

CREATE FUNCTION min(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN LEAST($1, $2);
CREATE FUNCTION max(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN GREATEST($1, $2);

CREATE FUNCTION json_kind(jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
  CASE jsonb_typeof($1) WHEN 'string' THEN 'text' WHEN 'number' THEN 'real' WHEN 'boolean' THEN $1 #>> '{}' ELSE jsonb_typeof($1) END;

CREATE FUNCTION json_member(text, path text) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
  $1::jsonb -> substr(path, 4, length(path) - 4);

CREATE FUNCTION json_type(text, path text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
  json_kind(json_member($1, path));

CREATE FUNCTION json_extract(text, path text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
  json_member($1, path) #>> '{}';

CREATE FUNCTION json_items(jsonb) RETURNS TABLE (key text, value text, type text)
  LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 16
BEGIN ATOMIC
  SELECT (number - 1)::text, item #>> '{}', json_kind(item)
    FROM jsonb_array_elements(CASE jsonb_typeof($1) WHEN 'array' THEN $1 ELSE '[]' END) WITH ORDINALITY AS items (item, number)
  UNION ALL
  SELECT member.key, member.value #>> '{}', json_kind(member.value)
    FROM jsonb_each(CASE jsonb_typeof($1) WHEN 'object' THEN $1 ELSE '{}' END) AS member;
END;

CREATE FUNCTION json_each(text) RETURNS TABLE (key text, value text, type text)
  LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 16
BEGIN ATOMIC
  SELECT * FROM json_items($1::jsonb);
END;

CREATE FUNCTION json_each(text, path text) RETURNS TABLE (key text, value text, type text)
  LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 16
BEGIN ATOMIC
  SELECT * FROM json_items(json_member($1, path));
END;

-- A pattern of GLOB as a regular expression: `*`, `?`, and `[abc]` or `[0-9]`.
CREATE FUNCTION glob_expression(pattern text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  expression text := '';
  place integer := 1;
  letter text;
  closed integer;
  members text;
BEGIN
  WHILE place <= length(pattern) LOOP
    letter := substr(pattern, place, 1);
    closed := strpos(substr(pattern, place + 2), ']');
    IF letter = '*' THEN
      expression := expression || '.*';
    ELSIF letter = '?' THEN
      expression := expression || '.';
    ELSIF letter = '[' AND closed > 0 THEN
      members := substr(pattern, place + 1, closed);
      IF members = '0-9' THEN
        expression := expression || '[0-9]';
      ELSE
        expression := expression || '(?:' || array_to_string(ARRAY(
          SELECT regexp_replace(member, '([^[:alnum:]_])', '\\\1') FROM regexp_split_to_table(members, '') AS member), '|') || ')';
      END IF;
      place := place + closed + 1;
    ELSE
      expression := expression || regexp_replace(letter, '([^[:alnum:]_])', '\\\1');
    END IF;
    place := place + 1;
  END LOOP;
  RETURN '^(?:' || expression || ')$';
END
$$;

CREATE FUNCTION glob(pattern text, value text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
  value ~ glob_expression(pattern);
