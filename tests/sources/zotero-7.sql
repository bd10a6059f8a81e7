-- The tables that are read, and what they refer to, with the columns of Zotero 7 (`userdata` 123, `system` 32).
CREATE TABLE version (schema TEXT PRIMARY KEY, version INT NOT NULL);
CREATE TABLE libraries (libraryID INTEGER PRIMARY KEY, type TEXT NOT NULL, editable INT NOT NULL, filesEditable INT NOT NULL);
CREATE TABLE itemTypes (itemTypeID INTEGER PRIMARY KEY, typeName TEXT, templateItemTypeID INT, display INT DEFAULT 1);
CREATE TABLE fieldsCombined (fieldID INTEGER PRIMARY KEY, fieldName TEXT NOT NULL, label TEXT, fieldFormatID INT, custom INT NOT NULL);
CREATE TABLE baseFieldMappingsCombined (itemTypeID INT, baseFieldID INT, fieldID INT, PRIMARY KEY (itemTypeID, baseFieldID, fieldID));
CREATE TABLE creatorTypes (creatorTypeID INTEGER PRIMARY KEY, creatorType TEXT);
CREATE TABLE items (itemID INTEGER PRIMARY KEY, itemTypeID INT NOT NULL, dateAdded TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    dateModified TIMESTAMP DEFAULT CURRENT_TIMESTAMP, clientDateModified TIMESTAMP DEFAULT CURRENT_TIMESTAMP, libraryID INT NOT NULL, key TEXT NOT NULL,
    version INT NOT NULL DEFAULT 0, synced INT NOT NULL DEFAULT 0, UNIQUE (libraryID, key));
CREATE TABLE itemDataValues (valueID INTEGER PRIMARY KEY, value UNIQUE);
CREATE TABLE itemData (itemID INT, fieldID INT, valueID, PRIMARY KEY (itemID, fieldID));
CREATE TABLE itemNotes (itemID INTEGER PRIMARY KEY, parentItemID INT, note TEXT, title TEXT);
CREATE TABLE itemAttachments (itemID INTEGER PRIMARY KEY, parentItemID INT, linkMode INT, contentType TEXT, charsetID INT, path TEXT,
    syncState INT DEFAULT 0, storageModTime INT, storageHash TEXT, lastProcessedModificationTime INT);
CREATE TABLE tags (tagID INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE itemTags (itemID INT NOT NULL, tagID INT NOT NULL, type INT NOT NULL, PRIMARY KEY (itemID, tagID));
CREATE TABLE creators (creatorID INTEGER PRIMARY KEY, firstName TEXT, lastName TEXT, fieldMode INT, UNIQUE (lastName, firstName, fieldMode));
CREATE TABLE itemCreators (itemID INT NOT NULL, creatorID INT NOT NULL, creatorTypeID INT NOT NULL DEFAULT 1, orderIndex INT NOT NULL DEFAULT 0,
    PRIMARY KEY (itemID, creatorID, creatorTypeID, orderIndex), UNIQUE (itemID, orderIndex));
CREATE TABLE deletedItems (itemID INTEGER PRIMARY KEY, dateDeleted DEFAULT CURRENT_TIMESTAMP NOT NULL);
INSERT INTO version VALUES ('userdata', 123), ('system', 32);
INSERT INTO libraries VALUES (1, 'user', 1, 1);
INSERT INTO itemTypes (itemTypeID, typeName) VALUES (3, 'attachment'), (22, 'journalArticle'), (28, 'note'), (8, 'case');
INSERT INTO fieldsCombined VALUES (1, 'title', NULL, NULL, 0), (6, 'date', NULL, NULL, 0), (13, 'url', NULL, NULL, 0), (59, 'DOI', NULL, NULL, 0),
    (58, 'caseName', NULL, NULL, 0);
INSERT INTO baseFieldMappingsCombined VALUES (8, 1, 58);
INSERT INTO creatorTypes VALUES (8, 'author');

INSERT INTO items (itemID, itemTypeID, libraryID, key) VALUES (1, 22, 1, 'ARTICLE1'), (2, 3, 1, 'PDFPDF22'), (3, 3, 1, 'SNAPSH33'), (4, 28, 1, 'NOTENO44'),
    (5, 8, 1, 'CASECA55'), (6, 3, 1, 'EPUBEP66'), (7, 3, 1, 'LINKED77'), (8, 3, 1, 'DELETE88'), (9, 28, 1, 'OWNNOT99'), (10, 3, 1, 'ABSENT10'),
    (11, 3, 1, 'ALONEA11'), (12, 3, 1, 'WEBPAG12');
INSERT INTO itemDataValues VALUES (1, 'On Ferries'), (2, '2020-05-00 May 2020'), (3, 'https://doi.org/10.1000/182'), (4, 'https://example.org/ferries'),
    (5, 'Smith v. Harbor'), (6, 'Full Text PDF'), (7, '0000-00-00 undated'), (8, 'Tide table');
INSERT INTO itemData VALUES (1, 1, 1), (1, 6, 2), (1, 59, 3), (1, 13, 4), (5, 58, 5), (5, 6, 7), (2, 1, 6), (11, 1, 8);
INSERT INTO creators VALUES (1, 'Ada', 'Lovelace', 0), (2, '', 'Harbor Board', 1), (3, NULL, 'Homer', 0);
INSERT INTO itemCreators VALUES (1, 2, 8, 1), (1, 1, 8, 0), (5, 3, 8, 0);
INSERT INTO tags VALUES (1, 'ferries'), (2, 'boats');
INSERT INTO itemTags VALUES (1, 1, 0), (1, 2, 1), (9, 1, 0);
INSERT INTO itemAttachments (itemID, parentItemID, linkMode, contentType, path) VALUES (2, 1, 0, 'application/pdf', 'storage:Lovelace - Ferries.pdf'),
    (3, 1, 1, 'text/html', 'storage:page.html'), (6, 5, 0, 'application/epub+zip', 'storage:case.epub'), (7, 1, 2, 'application/pdf', '/home/x/paper.pdf'),
    (8, 1, 0, 'application/pdf', 'storage:gone.pdf'), (10, 5, 0, 'application/pdf', 'storage:absent.pdf'), (11, NULL, 0, 'text/plain', 'storage:tides.txt'),
    (12, 1, 3, 'text/html', NULL);
INSERT INTO itemNotes VALUES (4, 1, '<div data-schema-version="9"><p>Ærø</p></div>', 'Ærø'), (9, NULL, '<p>To do</p>', 'To do');
INSERT INTO deletedItems (itemID) VALUES (8);
